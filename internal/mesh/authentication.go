package mesh

import "time"

// Authentication is a RequestAuthentication: which tokens of end users are
// verified. A request without a token passes it, one with a bad token is
// answered 401; policies demand a token by RequestPrincipals.
type Authentication struct {
	Key     PolicyKey
	Targets []Target
	Tokens  []TokenRule
}

// TokenRule is one issuer's tokens (JWT, RFC 7519).
type TokenRule struct {
	Issuer string
	// Audiences are those of which a token must have one; none is any.
	Audiences []string
	// Keys is the JWKS (RFC 7517) text. Empty with an Unready text means that it
	// has never been had, and tokens of the issuer are refused.
	Keys    string
	Unready string
	// KeysFrom is where Keys are fetched; empty for keys that are written down.
	KeysFrom string
	// Where tokens are looked for. All empty is the Authorization header and
	// the query parameter access_token.
	FromHeaders []TokenHeader
	FromParams  []string
	FromCookies []string
	// Forward leaves the token in the request.
	Forward bool
	// PayloadHeader gets the token's payload in base64url; empty is none.
	PayloadHeader string
	// ClaimHeaders get single claims.
	ClaimHeaders []ClaimHeader
	// SpaceDelimited are the claims whose text is a list, beside scope.
	SpaceDelimited []string
	// Leeway is the tolerated clock skew; zero is 60 s.
	Leeway time.Duration
}

// TokenHeader is a header with a token behind a prefix.
type TokenHeader struct{ Name, Prefix string }

// ClaimHeader is a header that gets a claim; Claim may be a dotted path.
type ClaimHeader struct{ Header, Claim string }

// Package authn verifies the tokens of end users that come with requests (JWT,
// RFC 7519), as RequestAuthentications say.
//
// It owns where tokens are looked for, what makes one good, and what of a good
// one goes on: claims for policies, headers for backends. It refuses to demand a
// token, which is for policies: a request without one passes, one with a bad one
// does not, whatever else it carries. It fetches no keys; istiod-lite/jwks does.
// Signatures are go-jose's matter. Called by waypoint/exchange.
package authn

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
)

// Request is what may carry tokens. Check changes it: what comes in in place of
// the headers that it writes is removed, and so are tokens that do not go on.
type Request struct {
	Header http.Header
	// Query is the raw query.
	Query string
	// Host and Path are for the challenge to a client.
	Host, Path string
}

// Refused is a request with a bad token.
type Refused struct {
	// Why is for records; a client is told only that its token is invalid.
	Why error
	// Challenge is the value of WWW-Authenticate (RFC 6750 3).
	Challenge string
}

// Error implements error.
func (r *Refused) Error() string { return r.Why.Error() }

// Unwrap gives the cause.
func (r *Refused) Unwrap() error { return r.Why }

// Verifier verifies tokens, and remembers the keys that it has read and the
// tokens that were good. The zero value is ready; it is used by many goroutines.
type Verifier struct {
	mu   sync.Mutex
	sets map[string]*keySet // by their text
	good map[known]*verified
}

// Check verifies every token that q has where the authentications look for one.
// Without any, the result is nil. If several are good, the first in the order
// of the rules counts. An error is a *Refused.
func (v *Verifier) Check(q *Request, all []*mesh.Authentication, now time.Time) (*policy.Token, error) {
	var rules []*mesh.TokenRule
	for _, a := range all {
		for i := range a.Tokens {
			rules = append(rules, &a.Tokens[i])
		}
	}
	found := find(q, rules)
	dropOutputs(q.Header, rules)
	var first *verified
	order := 0
	for _, f := range found {
		t, i, err := v.verify(f, now)
		if err != nil {
			return nil, &Refused{Why: fmt.Errorf("verifying the token in %s: %w", f.place, err), Challenge: challenge(q)}
		}
		if !f.rules[i].Forward {
			f.remove(q)
		}
		if first == nil || f.order[i] < order {
			first, order = t, f.order[i]
		}
	}
	if first == nil {
		return nil, nil
	}
	for _, h := range first.headers {
		q.Header.Set(h.Name, h.Value)
	}
	return first.token, nil
}

// challenge is that of upstream: the realm is what was asked for.
func challenge(q *Request) string {
	realm := strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, q.Host+q.Path)
	return fmt.Sprintf(`Bearer realm="http://%s", error="invalid_token"`, realm)
}

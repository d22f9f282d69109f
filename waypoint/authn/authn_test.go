package authn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// signer is an issuer's key.
type signer struct {
	id        string
	algorithm jose.SignatureAlgorithm
	key       any
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The keys of this test, made once.
var (
	ecKey   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	other   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	rsaKey  = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	edKey   = sync.OnceValue(func() ed25519.PrivateKey { _, k, err := ed25519.GenerateKey(rand.Reader); return must(k, err) })
	trusted = func() signer { return signer{"k1", jose.ES256, ecKey()} }
)

type claims map[string]any

// base are the claims of a good token.
func base(change ...func(claims)) claims {
	c := claims{"iss": "issuer.example", "sub": "jane", "aud": "shop", "exp": now.Add(time.Hour).Unix()}
	for _, f := range change {
		f(c)
	}
	return c
}

func (s signer) sign(t *testing.T, c claims) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if s.id != "" {
		options.WithHeader("kid", s.id)
	}
	by, err := jose.NewSigner(jose.SigningKey{Algorithm: s.algorithm, Key: s.key}, options)
	if err != nil {
		t.Fatal(err)
	}
	text := must(json.Marshal(c))
	return must(must(by.Sign(text)).CompactSerialize())
}

// jwks is a key set of public keys.
func jwks(signers ...signer) string {
	var set jose.JSONWebKeySet
	for _, s := range signers {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: s.key.(crypto.Signer).Public(), KeyID: s.id})
	}
	return string(must(json.Marshal(set)))
}

func rule(change ...func(*mesh.TokenRule)) mesh.TokenRule {
	r := mesh.TokenRule{Issuer: "issuer.example", Keys: jwks(trusted())}
	for _, f := range change {
		f(&r)
	}
	return r
}

func of(rules ...mesh.TokenRule) []*mesh.Authentication {
	return []*mesh.Authentication{{Tokens: rules}}
}

func bearer(token string) *Request {
	return &Request{Header: http.Header{"Authorization": {"Bearer " + token}}, Host: "shop.example", Path: "/cart"}
}

func TestTokensAreVerified(t *testing.T) {
	none := func(header, payload string) string {
		enc := base64.RawURLEncoding.EncodeToString
		return enc([]byte(header)) + "." + enc([]byte(payload)) + "."
	}
	payload := string(must(json.Marshal(base())))
	public := must(json.Marshal(jose.JSONWebKey{Key: ecKey().Public()}))
	for _, tt := range []struct {
		sentence string
		rule     mesh.TokenRule
		token    string
		why      string // empty if it is good
	}{
		{"a good one", rule(), trusted().sign(t, base()), ""},
		{"signed with RSA", rule(func(r *mesh.TokenRule) { r.Keys = jwks(signer{"r", jose.RS256, rsaKey()}) }), signer{"r", jose.RS256, rsaKey()}.sign(t, base()), ""},
		{"signed with RSA-PSS", rule(func(r *mesh.TokenRule) { r.Keys = jwks(signer{"r", jose.PS384, rsaKey()}) }), signer{"r", jose.PS384, rsaKey()}.sign(t, base()), ""},
		{"signed with Ed25519", rule(func(r *mesh.TokenRule) { r.Keys = jwks(signer{"e", jose.EdDSA, edKey()}) }), signer{"e", jose.EdDSA, edKey()}.sign(t, base()), ""},
		{"without a key id", rule(), signer{"", jose.ES256, ecKey()}.sign(t, base()), ""},
		{"with a key id where the keys have none", rule(func(r *mesh.TokenRule) { r.Keys = jwks(signer{"", jose.ES256, ecKey()}) }), trusted().sign(t, base()), ""},
		{"by the second key of an id", rule(func(r *mesh.TokenRule) { r.Keys = jwks(signer{"k1", jose.ES256, other()}, trusted()) }), trusted().sign(t, base()), ""},
		{"beside a key that nobody understands", rule(func(r *mesh.TokenRule) { r.Keys = `{"keys":[{"kty":"moon"},` + jwks(trusted())[len(`{"keys":[`):] }), trusted().sign(t, base()), ""},
		{"by another rule of its issuer", rule(), trusted().sign(t, base()), ""},

		{"by an unknown key id", rule(), signer{"k2", jose.ES256, ecKey()}.sign(t, base()), `no key "k2"`},
		{"by another key of that id", rule(), signer{"k1", jose.ES256, other()}.sign(t, base()), "verify"},
		{"of another issuer", rule(), trusted().sign(t, base(func(c claims) { c["iss"] = "evil.example" })), `issuer "evil.example" is not expected`},
		{"expired beyond the leeway", rule(), trusted().sign(t, base(func(c claims) { c["exp"] = now.Add(-61 * time.Second).Unix() })), "expired"},
		{"expired within the leeway", rule(), trusted().sign(t, base(func(c claims) { c["exp"] = now.Add(-59 * time.Second).Unix() })), ""},
		{"expired within a longer leeway", rule(func(r *mesh.TokenRule) { r.Leeway = time.Hour }), trusted().sign(t, base(func(c claims) { c["exp"] = now.Add(-59 * time.Minute).Unix() })), ""},
		{"without an end", rule(), trusted().sign(t, base(func(c claims) { delete(c, "exp") })), ""},
		{"not valid yet", rule(), trusted().sign(t, base(func(c claims) { c["nbf"] = now.Add(2 * time.Minute).Unix() })), "not valid before"},
		{"valid in a moment", rule(), trusted().sign(t, base(func(c claims) { c["nbf"] = now.Add(time.Minute).Unix() })), ""},
		{"for one of the audiences", rule(func(r *mesh.TokenRule) { r.Audiences = []string{"bank", "shop"} }), trusted().sign(t, base(func(c claims) { c["aud"] = []string{"x", "shop"} })), ""},
		{"for none of the audiences", rule(func(r *mesh.TokenRule) { r.Audiences = []string{"bank"} }), trusted().sign(t, base()), `it is for ["shop"]`},
		{"for nobody", rule(func(r *mesh.TokenRule) { r.Audiences = []string{"bank"} }), trusted().sign(t, base(func(c claims) { delete(c, "aud") })), "it is for []"},
		{"with an end that is no time", rule(), trusted().sign(t, base(func(c claims) { c["exp"] = "later" })), "claims"},
		{"not signed", rule(), none(`{"alg":"none"}`, payload), "alg"},
		{"not signed, in another case", rule(), none(`{"alg":"NONE"}`, payload), "alg"},
		{"signed with the public key as a secret", rule(), signer{"k1", jose.HS256, public}.sign(t, base()), "alg"},
		{"by a secret that stands among the keys", rule(func(r *mesh.TokenRule) {
			r.Keys = `{"keys":[{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0","kid":"k1"}]}`
		}), signer{"k1", jose.HS256, []byte("secretsecretsecretsecretsecretsecret")}.sign(t, base()), "alg"},
		{"by a key for encryption", rule(func(r *mesh.TokenRule) {
			r.Keys = strings.Replace(jwks(trusted()), `"kty"`, `"use":"enc","kty"`, 1)
		}), trusted().sign(t, base()), "no key"},
		{"by a key of another algorithm", rule(func(r *mesh.TokenRule) {
			r.Keys = strings.Replace(jwks(signer{"r", jose.RS256, rsaKey()}), `"kty"`, `"alg":"RS512","kty"`, 1)
		}), signer{"r", jose.RS256, rsaKey()}.sign(t, base()), "no key"},
		{"not a token", rule(), "hello", "JWS"},
		{"an encrypted one", rule(), "a.b.c.d.e", "JWS"},
		{"an endless one", rule(), strings.Repeat("a", maxToken+1), "too long"},
		{"while there are no keys", rule(func(r *mesh.TokenRule) { r.Keys, r.Unready = "", "have not been fetched yet" }), trusted().sign(t, base()), "the keys of issuer issuer.example have not been fetched yet"},
	} {
		var v Verifier
		q := bearer(tt.token)
		token, err := v.Check(q, of(rule(func(r *mesh.TokenRule) { r.Issuer = "somebody" }), tt.rule), now)
		switch {
		case tt.why == "" && (err != nil || token == nil || token.Principal != "issuer.example/jane"):
			t.Errorf("%s: refused: %v (%+v)", tt.sentence, err, token)
		case tt.why != "" && (err == nil || token != nil || !strings.Contains(err.Error(), tt.why)):
			t.Errorf("%s: error %v, want one with %q", tt.sentence, err, tt.why)
		}
	}
}

func TestAChangedTokenIsRefused(t *testing.T) {
	var v Verifier
	parts := strings.Split(trusted().sign(t, base()), ".")
	evil := base64.RawURLEncoding.EncodeToString(must(json.Marshal(base(func(c claims) { c["sub"] = "root" }))))
	_, err := v.Check(bearer(parts[0]+"."+evil+"."+parts[2]), of(rule()), now)
	refused, ok := errors.AsType[*Refused](err)
	if !ok {
		t.Fatalf("error %v, want a Refused", err)
	}
	if want := `Bearer realm="http://shop.example/cart", error="invalid_token"`; refused.Challenge != want {
		t.Errorf("challenge %s, want %s", refused.Challenge, want)
	}
}

func TestWhereTokensAreLookedFor(t *testing.T) {
	token := trusted().sign(t, base())
	in := func(f func(r *mesh.TokenRule)) mesh.TokenRule { return rule(f) }
	header := in(func(r *mesh.TokenRule) { r.FromHeaders = []mesh.TokenHeader{{Name: "x-jwt", Prefix: "Token "}} })
	param := in(func(r *mesh.TokenRule) { r.FromParams = []string{"jwt"} })
	cookie := in(func(r *mesh.TokenRule) { r.FromCookies = []string{"session"} })
	escaped := url.QueryEscape(token)
	for _, tt := range []struct {
		sentence string
		rule     mesh.TokenRule
		header   http.Header
		query    string
		found    bool
		after    http.Header
		left     string // the query after
	}{
		{"nowhere", rule(), http.Header{}, "a=b", false, http.Header{}, "a=b"},
		{"a scheme that is not Bearer", rule(), http.Header{"Authorization": {"Basic abc"}}, "", false, http.Header{"Authorization": {"Basic abc"}}, ""},
		{"the scheme in another case", rule(), http.Header{"Authorization": {"bEARER " + token}}, "", true, http.Header{}, ""},
		{"the default parameter", rule(), http.Header{}, "a=b&access_token=" + escaped + "&c=%20d", true, http.Header{}, "a=b&c=%20d"},
		{"a header with a prefix", header, http.Header{"X-Jwt": {"Token " + token}}, "", true, http.Header{}, ""},
		{"a header without its prefix", header, http.Header{"X-Jwt": {token}}, "", false, http.Header{"X-Jwt": {token}}, ""},
		{"not in Authorization if elsewhere", header, http.Header{"Authorization": {"Bearer " + token}}, "", false, http.Header{"Authorization": {"Bearer " + token}}, ""},
		{"a parameter", param, http.Header{}, "jwt=" + escaped, true, http.Header{}, ""},
		{"a parameter whose name is escaped", param, http.Header{}, "%6Awt=" + escaped + "&a", true, http.Header{}, "a"},
		{"a cookie", cookie, http.Header{"Cookie": {"a=b; session=" + token + "; c=d"}}, "", true, http.Header{"Cookie": {"a=b; c=d"}}, ""},
		{"a cookie alone", cookie, http.Header{"Cookie": {"session=" + token}}, "", true, http.Header{}, ""},
	} {
		for _, forward := range []bool{false, true} {
			var v Verifier
			r := tt.rule
			r.Forward = forward
			q := &Request{Header: tt.header.Clone(), Query: tt.query}
			got, err := v.Check(q, of(r), now)
			if err != nil || (got != nil) != tt.found {
				t.Errorf("%s: found %v, error %v; want %v", tt.sentence, got != nil, err, tt.found)
			}
			after, left := tt.after, tt.left
			if forward {
				after, left = tt.header, tt.query
			}
			if d := cmp.Diff(after, q.Header); d != "" || q.Query != left {
				t.Errorf("%s, forwarded %v: query %q, header (-want +got):\n%s", tt.sentence, forward, q.Query, d)
			}
		}
	}
}

func TestEveryTokenMustBeGood(t *testing.T) {
	var v Verifier
	good, bad := trusted().sign(t, base()), signer{"k1", jose.ES256, other()}.sign(t, base())
	two := rule(func(r *mesh.TokenRule) { r.FromHeaders = []mesh.TokenHeader{{Name: "X-A"}, {Name: "X-B"}} })
	for _, header := range []http.Header{
		{"X-A": {good}, "X-B": {bad}}, {"X-A": {bad}, "X-B": {good}}, {"X-A": {good, bad}},
	} {
		if _, err := v.Check(&Request{Header: header}, of(two), now); err == nil {
			t.Errorf("a bad token passes beside a good one: %v", header)
		}
	}
	second := trusted().sign(t, base(func(c claims) { c["sub"] = "joe" }))
	first := rule(func(r *mesh.TokenRule) { r.FromHeaders = []mesh.TokenHeader{{Name: "X-B"}} })
	got, err := v.Check(&Request{Header: http.Header{"X-A": {good}, "X-B": {second}}}, of(first, two), now)
	if err != nil || got.Principal != "issuer.example/joe" {
		t.Errorf("of two good ones %+v counts, %v; want that of the first rule", got, err)
	}
}

func TestWhatPoliciesSee(t *testing.T) {
	var v Verifier
	token := trusted().sign(t, base(func(c claims) {
		c["azp"], c["aud"] = "app", []string{"shop", "bank"}
		c["scope"], c["roles"], c["level"] = "read write", "a b", 7
		c["login"] = claims{"scope": "x y"}
	}))
	got, err := v.Check(bearer(token), of(rule(func(r *mesh.TokenRule) { r.SpaceDelimited = []string{"login.scope"} })), now)
	if err != nil {
		t.Fatal(err)
	}
	want := &policy.Token{Principal: "issuer.example/jane", Audiences: []string{"shop", "bank"}, Presenter: "app", Claims: map[string]any{
		"iss": "issuer.example", "sub": "jane", "aud": []any{"shop", "bank"}, "azp": "app", "exp": json.Number("1893502800"),
		"scope": []any{"read", "write"}, "roles": "a b", "level": json.Number("7"), "login": map[string]any{"scope": []any{"x", "y"}},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	got, err = v.Check(bearer(trusted().sign(t, base(func(c claims) { delete(c, "sub") }))), of(rule()), now)
	if err != nil || got.Principal != "" {
		t.Errorf("a token of nobody: %+v, %v; want no principal", got, err)
	}
}

func TestHeadersForBackends(t *testing.T) {
	r := rule(func(r *mesh.TokenRule) {
		r.PayloadHeader = "X-Payload"
		for header, claim := range map[string]string{"X-Sub": "sub", "X-Deep": "a.b", "X-Url": "https://x.example/groups", "X-List": "list", "X-Bool": "ok", "X-Evil": "evil", "X-Gone": "gone", "X-Map": "a"} {
			r.ClaimHeaders = append(r.ClaimHeaders, mesh.ClaimHeader{Header: header, Claim: claim})
		}
	})
	token := trusted().sign(t, base(func(c claims) {
		c["a"], c["https://x.example/groups"], c["list"], c["ok"] = claims{"b": 7}, "g", []string{"x", "y"}, true
		c["evil"] = "x\r\nY: z"
	}))
	forged := http.Header{"X-Sub": {"root"}, "X_sub": {"root"}, "X-Payload": {"root"}, "X-Gone": {"root"}, "X-Other": {"kept"}}
	var v Verifier

	q := &Request{Header: forged.Clone()}
	if _, err := v.Check(q, of(r), now); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(http.Header{"X-Other": {"kept"}}, q.Header); d != "" {
		t.Errorf("without a token nobody writes these headers (-want +got):\n%s", d)
	}

	q.Header = forged.Clone()
	q.Header.Set("Authorization", "Bearer "+token)
	if _, err := v.Check(q, of(r), now); err != nil {
		t.Fatal(err)
	}
	want := http.Header{
		"X-Other": {"kept"}, "X-Sub": {"jane"}, "X-Deep": {"7"}, "X-Url": {"g"}, "X-List": {"x,y"}, "X-Bool": {"true"},
		"X-Payload": {strings.Split(token, ".")[1]},
	}
	if d := cmp.Diff(want, q.Header); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestKeysThatRotateAwayAreForgotten(t *testing.T) {
	var v Verifier
	for i := range 2 * maxSets {
		v.keys(&mesh.TokenRule{Keys: strings.Repeat(" ", i)})
	}
	if n := len(v.sets); n > maxSets {
		t.Errorf("%d sets are remembered, want at most %d", n, maxSets)
	}
}

func TestATokenThatIsRememberedStillEnds(t *testing.T) {
	var v Verifier
	all, token := of(rule()), trusted().sign(t, base())
	for _, tt := range []struct {
		after time.Duration
		good  bool
	}{{0, true}, {30 * time.Minute, true}, {2 * time.Hour, false}, {0, true}} {
		if _, err := v.Check(bearer(token), all, now.Add(tt.after)); (err == nil) != tt.good {
			t.Errorf("after %s: error %v, want it to be good: %v", tt.after, err, tt.good)
		}
	}
	if _, err := v.Check(bearer(token), of(rule(func(r *mesh.TokenRule) { r.Keys = jwks(signer{"k1", jose.ES256, other()}) })), now); err == nil {
		t.Error("a token is good by keys that are not trusted any more")
	}
	for i := range maxGood + 1 {
		v.remember(&mesh.TokenRule{}, strings.Repeat("a", i%3), &verified{})
	}
	v.remember(&all[0].Tokens[0], strings.Repeat("a", maxKnown+1), &verified{})
	if n := len(v.good); n > maxGood {
		t.Errorf("%d tokens are remembered, want at most %d", n, maxGood)
	}
	if v.known(&all[0].Tokens[0], strings.Repeat("a", maxKnown+1)) != nil {
		t.Error("a long token is remembered")
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("Bearer a.b.c", "access_token=x", "a=b")
	f.Fuzz(func(t *testing.T, authorization, query, cookie string) {
		var v Verifier
		q := &Request{Header: http.Header{"Authorization": {authorization}, "Cookie": {cookie}}, Query: query}
		if token, _ := v.Check(q, of(rule(), rule(func(r *mesh.TokenRule) { r.FromCookies = []string{"a"} })), now); token != nil {
			t.Fatalf("a token that nobody signed is taken: %+v", token)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	var v Verifier
	t := &testing.T{}
	token, all := trusted().sign(t, base()), of(rule(func(r *mesh.TokenRule) { r.Forward = true }))
	q := bearer(token)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Check(q, all, now); err != nil {
			b.Fatal(err)
		}
	}
}

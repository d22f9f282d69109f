package exchange

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// issuer signs tokens of "me".
type issuer struct {
	t   *testing.T
	key *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{t, key}
}

func (i issuer) keys() string {
	b, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "k"}}})
	return string(b)
}

func (i issuer) token(subject string, valid time.Duration) string {
	i.t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.key}, (&jose.SignerOptions{}).WithHeader("kid", "k"))
	if err != nil {
		i.t.Fatal(err)
	}
	signed, err := s.Sign(fmt.Appendf(nil, `{"iss":"me","sub":%q,"exp":%d}`, subject, time.Now().Add(valid).Unix()))
	if err != nil {
		i.t.Fatal(err)
	}
	text, _ := signed.CompactSerialize()
	return text
}

func TestTokensOfEndUsers(t *testing.T) {
	r, mine, other := newRig(t), newIssuer(t), newIssuer(t)
	var got atomic.Pointer[http.Request]
	r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(_ http.ResponseWriter, q *http.Request) { got.Store(q) })))
	k := mesh.PolicyKey{Namespace: "shop", Name: "jwt"}
	r.state.model.Authentications[k] = &mesh.Authentication{Key: k, Tokens: []mesh.TokenRule{{
		Issuer: "me", Keys: mine.keys(), FromParams: []string{"token"}, FromHeaders: []mesh.TokenHeader{{Name: "Authorization", Prefix: "Bearer "}},
		ClaimHeaders: []mesh.ClaimHeader{{Header: "X-User", Claim: "sub"}},
	}}}
	only := mesh.PolicyKey{Namespace: "shop", Name: "only-jane"}
	r.state.model.Policies[only] = &mesh.Policy{Key: only, Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{
		HTTP: &mesh.HTTPMatch{RequestPrincipals: []mesh.StringMatch{{Value: "me/jane"}}},
	}}}}}}}
	r.publish()
	for _, c := range []struct {
		name, path, header string
		status             int
		flag               telemetry.ExchangeFlag
		told               string
	}{
		{"a good token", "/", mine.token("jane", time.Hour), 200, telemetry.ExchangeOK, "verified, of me/jane"},
		{"a good token in the query, which does not go on", "/?a=b&token=" + mine.token("jane", time.Hour), "", 200, telemetry.ExchangeOK, "verified, of me/jane"},
		{"a good token of somebody else", "/", mine.token("john", time.Hour), 403, telemetry.ExchangeDenied, "verified, of me/john"},
		{"no token", "/", "", 403, telemetry.ExchangeDenied, "none was sent"},
		{"a token by another key", "/", other.token("jane", time.Hour), 401, telemetry.ExchangeBadToken, "refused: "},
		{"a token whose time is over", "/", mine.token("jane", -time.Hour), 401, telemetry.ExchangeBadToken, "refused: "},
		{"nonsense", "/", "x.y.z", 401, telemetry.ExchangeBadToken, "refused: "},
	} {
		header := []string{"X-User: made-up"}
		if c.header != "" {
			header = append(header, "Authorization: Bearer "+c.header)
		}
		got.Store(nil)
		r.forget()
		resp, _ := r.do(false, "GET "+c.path, "", header...)
		q := got.Load()
		if resp.StatusCode != c.status || (q != nil) != (c.status == 200) {
			t.Errorf("%s: %s", c.name, resp.Status)
		}
		if e := r.last(); e.Flag != c.flag {
			t.Errorf("%s: recorded with %s", c.name, e.Flag)
		}
		told := r.story().Tokens
		if len(told) != 1 || told[0].About != "shop/jwt" || !strings.HasPrefix(told[0].Says, c.told) || c.header != "" && strings.Contains(told[0].Says, c.header) {
			t.Errorf("%s: the story tells %+v, want %q and no token", c.name, told, c.told)
		}
		if q != nil && (strings.Contains(q.URL.RawQuery, "token") || q.Header.Get("X-User") != "jane" || q.Header.Get("Authorization") != "") {
			t.Errorf("%s: the backend got %s %v", c.name, q.URL, q.Header)
		}
		if c.status == 401 && !strings.Contains(resp.Header.Get("Www-Authenticate"), "invalid_token") {
			t.Errorf("%s: %v", c.name, resp.Header)
		}
	}
}

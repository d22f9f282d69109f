package exchange

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// TestWhatAProviderBringsCounts is the order of CUSTOM, tokens, DENY, ALLOW and
// routes: each sees what those before it have made of the request.
func TestWhatAProviderBringsCounts(t *testing.T) {
	r, me := newRig(t), newIssuer(t)
	var got atomic.Pointer[http.Request]
	keep := backendtest.HTTP(func(_ http.ResponseWriter, q *http.Request) { got.Store(q) })
	r.service("web", mesh.AppUnknown, r.pod("web", keep))
	r.service("special", mesh.AppUnknown, r.pod("special", backendtest.HTTP(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(299) })))
	token := me.token("jane", time.Hour)
	r.service("authz", mesh.AppHTTP11, r.pod("authz", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Authorization", "Bearer "+token)
		w.Header().Set("X-Role", q.URL.Path[1:])
	})))
	names := func(s ...string) (out []mesh.StringMatch) {
		for _, n := range s {
			out = append(out, mesh.StringMatch{Value: n})
		}
		return out
	}
	role := func(value string) []mesh.Rule {
		m := &mesh.HTTPMatch{Values: []mesh.NamedMatch{{Name: []string{"X-Role"}, Values: names(value)}}}
		return []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{HTTP: m}}}}}}
	}
	policies := func(name string, p mesh.Policy) {
		p.Key = mesh.PolicyKey{Namespace: "shop", Name: name}
		r.state.model.Policies[p.Key] = &p
	}
	policies("ask", mesh.Policy{Action: mesh.ActionCustom, Rules: []mesh.Rule{{}}, Provider: &mesh.Provider{
		Name: "p", Service: key("authz"), Port: 80, Timeout: 10 * time.Second, HeadersToUpstream: names("authorization", "x-role"),
	}})
	policies("no-guests", mesh.Policy{Action: mesh.ActionDeny, Rules: role("guest")})
	policies("only-jane", mesh.Policy{Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{
		HTTP: &mesh.HTTPMatch{RequestPrincipals: names("me/jane")},
	}}}}}}})
	k := mesh.PolicyKey{Namespace: "shop", Name: "jwt"}
	r.state.model.Authentications[k] = &mesh.Authentication{Key: k, Tokens: []mesh.TokenRule{{
		Issuer: "me", Keys: me.keys(), ClaimHeaders: []mesh.ClaimHeader{{Header: "X-User", Claim: "sub"}},
	}}}
	r.rules(
		mesh.RouteRule{
			Matches:  []mesh.RequestMatch{{Headers: []mesh.ValueMatch{{Name: "x-role", Value: "special"}}}},
			Backends: []mesh.Backend{{Service: key("special"), Port: 80, Weight: 1}},
		},
		mesh.RouteRule{Backends: []mesh.Backend{{Service: key("web"), Port: 80, Weight: 1}}},
	)
	for _, tt := range []struct {
		sentence, path string
		status         int
	}{
		{"a token that the provider brings is verified, and an ALLOW by it matches", "/user", 200},
		{"a DENY sees the provider's header, not the client's", "/guest", 403},
		{"a route sees it too", "/special", 299},
	} {
		resp, _ := r.do(false, "GET "+tt.path, "", "X-Role: made-up", "Authorization: Basic abc")
		if resp.StatusCode != tt.status {
			t.Errorf("%s: %s, record %+v", tt.sentence, resp.Status, r.last())
		}
	}
	resp, _ := r.do(false, "GET /user", "", "Connection: x-role, x-user", "X-User: root")
	if q := got.Load(); resp.StatusCode != 200 || q.Header.Get("X-Role") != "user" || q.Header.Get("X-User") != "jane" {
		t.Errorf("a client took away what is said of it: %s, the backend got %v", resp.Status, q.Header)
	}
}

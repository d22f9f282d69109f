package table

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

func key(name string) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: "shop", Hostname: name + ".shop.svc.cluster.local"}
}

func routeKey(name string) mesh.RouteKey {
	return mesh.RouteKey{Kind: mesh.RouteHTTP, Namespace: "shop", Name: name}
}

func policyKey(name string) mesh.PolicyKey { return mesh.PolicyKey{Namespace: "shop", Name: name} }

// path is a route of a service for one exact path.
func path(name, service, path string) *mesh.Route {
	return &mesh.Route{
		Key: routeKey(name), Parents: []mesh.RouteParent{{Service: key(service)}},
		Rules: []mesh.RouteRule{{Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathExact, Value: path}}}}},
	}
}

func route(r *mesh.Route) xds.Resource {
	return xds.Resource{Name: wire.RouteName(r.Key), Body: wire.MarshalRoute(r)}
}

func guarding(name string, targets ...mesh.Target) xds.Resource {
	p := &mesh.Policy{Key: policyKey(name), Scope: mesh.ScopeTargets, Targets: targets}
	return xds.Resource{Name: wire.PolicyName(p.Key), Body: wire.MarshalTargetPolicy(p)}
}

func verifying(name string, targets ...mesh.Target) xds.Resource {
	a := &mesh.Authentication{Key: policyKey(name), Targets: targets}
	return xds.Resource{Name: wire.AuthenticationName(a.Key), Body: wire.MarshalAuthentication(a)}
}

func service(name string, ports ...uint16) xds.Resource {
	s := &mesh.Service{Name: name, Namespace: "shop", Hostname: key(name).Hostname}
	for _, p := range ports {
		s.Ports = append(s.Ports, mesh.Port{Service: p, Target: p})
	}
	return xds.Resource{Name: s.Key().String(), Body: wire.MarshalService(s)}
}

func take(t *testing.T, s *Store, typ string, removed []string, upserts ...xds.Resource) []xds.Rejection {
	t.Helper()
	return s.Receive(context.Background(), xds.Update{Type: typ, Generation: s.Table().Generation() + 1, Upserts: upserts, Removed: removed})
}

func accepted(t *testing.T, s *Store, typ string, removed []string, upserts ...xds.Resource) {
	t.Helper()
	for _, r := range take(t, s, typ, removed, upserts...) {
		t.Errorf("%s is rejected: %v", r.Name, r.Reason)
	}
}

// outcome is what becomes of a request for a path of a service.
func outcome(tb *Table, service, path string) match.Outcome {
	return tb.Routes(key(service), 80).Find(&match.Request{Method: "GET", Path: path}).Outcome
}

func TestARouteIsLiveWithTheTableThatHoldsIt(t *testing.T) {
	s := NewStore(key("wp"))
	accepted(t, s, xds.TypeAddress, nil, service("reviews", 80))
	before := s.Table()
	accepted(t, s, xds.TypeWaypoint, nil, route(path("r", "reviews", "/a")))
	after := s.Table()
	for _, tt := range []struct {
		what  string
		table *Table
		path  string
		want  match.Outcome
	}{
		{"no route yet", before, "/a", match.Default},
		{"the route's path", after, "/a", match.Matched},
		{"another path", after, "/b", match.NotFound},
	} {
		if got := outcome(tt.table, "reviews", tt.path); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
		}
	}
	select {
	case <-before.Superseded():
	default:
		t.Error("the older table does not know that there is a newer one")
	}
	accepted(t, s, xds.TypeWaypoint, nil, route(path("r", "ratings", "/a")))
	if got := outcome(s.Table(), "reviews", "/a"); got != match.Default {
		t.Errorf("a route that moved to another service still speaks for the first: %v", got)
	}
	if got := outcome(s.Table(), "ratings", "/a"); got != match.Matched {
		t.Errorf("a route that moved does not speak for the second: %v", got)
	}
	accepted(t, s, xds.TypeWaypoint, []string{wire.RouteName(routeKey("r"))})
	if got := outcome(s.Table(), "ratings", "/a"); got != match.Default {
		t.Errorf("a route that is gone still speaks: %v", got)
	}
	if got := outcome(after, "reviews", "/a"); got != match.Matched {
		t.Errorf("an older table changed: %v", got)
	}
	if g := s.Table().Generation(); g != 4 {
		t.Errorf("generation %d after 4 updates", g)
	}
}

func TestRoutesOfOtherServicesAreShared(t *testing.T) {
	s := NewStore(key("wp"))
	accepted(t, s, xds.TypeWaypoint, nil, route(path("a", "a", "/")), route(path("b", "b", "/")))
	before := s.Table()
	accepted(t, s, xds.TypeWaypoint, nil, route(path("a", "a", "/new")))
	if s.Table().attached[key("b")] != before.attached[key("b")] {
		t.Error("the routes of a service that nothing happened to were made anew")
	}
	if s.Table().attached[key("a")] == before.attached[key("a")] {
		t.Error("the routes of the changed service are the old ones")
	}
}

func names(set policy.Set) string {
	var out []string
	for _, p := range set.Policies {
		out = append(out, p.Key.Name)
	}
	for _, k := range set.Unknown {
		out = append(out, "?"+k.Name)
	}
	return strings.Join(out, " ")
}

func TestWhatGuardsAService(t *testing.T) {
	s := NewStore(key("wp"))
	accepted(t, s, xds.TypeWaypoint, nil,
		guarding("everywhere", mesh.Target{Class: true}), guarding("here", mesh.Target{Gateway: key("wp")}),
		guarding("reviews", mesh.Target{Service: key("reviews")}, mesh.Target{Service: key("ratings")}),
		guarding("elsewhere", mesh.Target{Gateway: key("other")}),
		verifying("all", mesh.Target{Class: true}), verifying("one", mesh.Target{Service: key("reviews")}))
	for _, tt := range []struct {
		service mesh.ServiceKey
		want    string
		tokens  int
	}{
		{key("reviews"), "everywhere here reviews", 2},
		{key("ratings"), "everywhere here reviews", 1},
		{key("plain"), "everywhere here", 1},
		{mesh.ServiceKey{}, "everywhere here", 1},
	} {
		if got := names(s.Table().Policies(tt.service)); got != tt.want {
			t.Errorf("%s is guarded by %q, want %q", tt.service, got, tt.want)
		}
		if got := len(s.Table().Authentications(tt.service)); got != tt.tokens {
			t.Errorf("%s has %d authentications, want %d", tt.service, got, tt.tokens)
		}
	}
	accepted(t, s, xds.TypeWaypoint, []string{wire.PolicyName(policyKey("here")), wire.AuthenticationName(policyKey("all"))})
	if got := names(s.Table().Policies(key("reviews"))); got != "everywhere reviews" {
		t.Errorf("a policy that is gone still guards: %q", got)
	}
}

func TestAPolicyThatCannotBeReadClosesEverything(t *testing.T) {
	s := NewStore(key("wp"))
	accepted(t, s, xds.TypeWaypoint, nil, guarding("reviews", mesh.Target{Service: key("reviews")}))
	bad := take(t, s, xds.TypeWaypoint, nil, xds.Resource{Name: wire.PolicyName(policyKey("later")), Body: []byte(`{"Later":1}`)})
	if len(bad) != 1 {
		t.Fatalf("%d resources rejected, want 1", len(bad))
	}
	for _, k := range []mesh.ServiceKey{key("reviews"), key("plain"), {}} {
		if v := policy.Evaluate(s.Table().Policies(k), policy.Connection{}); v.Allow {
			t.Errorf("%q is open: %s", k, v)
		}
	}
}

func TestWhatIsRejectedLeavesWhatWasKnown(t *testing.T) {
	s := NewStore(key("wp"))
	accepted(t, s, xds.TypeWaypoint, nil, route(path("r", "reviews", "/a")))
	if bad := take(t, s, xds.TypeWaypoint, nil, xds.Resource{Name: wire.RouteName(routeKey("r")), Body: []byte("{")}); len(bad) != 1 {
		t.Fatalf("%d resources rejected, want 1", len(bad))
	}
	if got := outcome(s.Table(), "reviews", "/a"); got != match.Matched {
		t.Errorf("the route that was known is lost: %v", got)
	}
	broken := path("r", "reviews", "(")
	broken.Rules[0].Matches[0].Path.Op = mesh.PathRegex
	if bad := take(t, s, xds.TypeWaypoint, nil, route(broken)); len(bad) != 1 {
		t.Fatalf("%d resources rejected, want 1", len(bad))
	}
	if got := outcome(s.Table(), "reviews", "/a"); got != match.NotFound {
		t.Errorf("a route that cannot be used is passed by: %v", got)
	}
}

func TestReplace(t *testing.T) {
	s := NewStore(key("wp"))
	accepted(t, s, xds.TypeWaypoint, nil, route(path("old", "reviews", "/old")))
	r := path("r", "reviews", "/a")
	s.Replace(mesh.Model{
		Services: map[mesh.ServiceKey]*mesh.Service{key("reviews"): {Name: "reviews", Namespace: "shop", Hostname: key("reviews").Hostname}},
		Routes:   map[mesh.RouteKey]*mesh.Route{r.Key: r},
		Policies: map[mesh.PolicyKey]*mesh.Policy{
			policyKey("l4"): {Key: policyKey("l4"), Scope: mesh.ScopeNamespace},
			policyKey("l7"): {Key: policyKey("l7"), Scope: mesh.ScopeTargets, Targets: []mesh.Target{{Service: key("reviews")}}},
		},
		Traffic: map[mesh.ServiceKey]*mesh.Traffic{key("reviews"): {Service: key("reviews")}},
	})
	now := s.Table()
	if outcome(now, "reviews", "/a") != match.Matched || outcome(now, "reviews", "/old") != match.NotFound || now.View().Service(key("reviews")) == nil || now.Traffic(key("reviews")) == nil {
		t.Error("the table does not hold the model")
	}
	if d := cmp.Diff("l7", names(now.Policies(key("reviews")))); d != "" {
		t.Errorf("policies (-want +got):\n%s", d)
	}
}

// BenchmarkOneRouteOfMany is the waypoint's part of route.change.
func BenchmarkOneRouteOfMany(b *testing.B) {
	for _, services := range []int{1, 5000} {
		b.Run(fmt.Sprintf("5000routes/%dservices", services), func(b *testing.B) {
			s := NewStore(key("wp"))
			var all []xds.Resource
			for i := range 5000 {
				svc := fmt.Sprintf("s%d", i%services)
				all = append(all, service(svc, 80))
			}
			s.Receive(b.Context(), xds.Update{Type: xds.TypeAddress, Upserts: all})
			all = nil
			for i := range 5000 {
				all = append(all, route(path(fmt.Sprintf("r%d", i), fmt.Sprintf("s%d", i%services), fmt.Sprintf("/%d", i))))
			}
			s.Receive(b.Context(), xds.Update{Type: xds.TypeWaypoint, Upserts: all})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.Receive(b.Context(), xds.Update{Type: xds.TypeWaypoint, Upserts: []xds.Resource{route(path("r7", fmt.Sprintf("s%d", 7%services), fmt.Sprintf("/new%d", i)))}})
			}
		})
	}
}

func TestKeysStayWhileAControlPlaneHasNoneYet(t *testing.T) {
	s := NewStore(key("wp"))
	send := func(rules ...mesh.TokenRule) []mesh.TokenRule {
		a := &mesh.Authentication{Key: policyKey("tokens"), Targets: []mesh.Target{{Class: true}}, Tokens: rules}
		take(t, s, xds.TypeWaypoint, nil, xds.Resource{Name: wire.AuthenticationName(a.Key), Body: wire.MarshalAuthentication(a)})
		return s.Table().Authentications(key("web"))[0].Tokens
	}
	fetched := mesh.TokenRule{Issuer: "me", KeysFrom: "https://me/keys", Keys: "K"}
	young := mesh.TokenRule{Issuer: "me", KeysFrom: "https://me/keys", Unready: "have not been fetched yet"}
	moved := mesh.TokenRule{Issuer: "me", KeysFrom: "https://me/new", Unready: "have not been fetched yet"}
	written := mesh.TokenRule{Issuer: "me", Unready: "are not a JWKS"}
	for _, tt := range []struct {
		sentence  string
		then, now mesh.TokenRule
		want      string
	}{
		{"keys of the same place stay", fetched, young, "K"},
		{"keys of another place do not", fetched, moved, ""},
		{"keys do not stand in for those written down", fetched, written, ""},
		{"newer keys count", fetched, mesh.TokenRule{Issuer: "me", KeysFrom: "https://me/keys", Keys: "L"}, "L"},
	} {
		send(tt.then)
		if got := send(tt.now)[0].Keys; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.sentence, got, tt.want)
		}
	}
}

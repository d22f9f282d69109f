package wire

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

var reviews = mesh.ServiceKey{Namespace: "shop", Hostname: "reviews.shop.svc.cluster.local"}

func fullRoute() *mesh.Route {
	edit := &mesh.HeaderEdit{Set: []mesh.Header{{Name: "A", Value: "1"}}, Add: []mesh.Header{{Name: "B", Value: "2"}}, Remove: []string{"C"}}
	return &mesh.Route{
		Key: mesh.RouteKey{Kind: mesh.RouteHTTP, Namespace: "shop", Name: "r"}, Created: 7, Generation: 3,
		Parents: []mesh.RouteParent{{Service: reviews, Port: 80}},
		Rules: []mesh.RouteRule{{
			Name: "n",
			Matches: []mesh.RequestMatch{{
				Path: mesh.PathMatch{Op: mesh.PathPrefix, Value: "/a"}, Method: "GET", Call: &mesh.CallMatch{Service: "s", Method: "m", Regex: true},
				Headers: []mesh.ValueMatch{{Name: "h", Value: "v", Regex: true}}, Query: []mesh.ValueMatch{{Name: "q", Value: "v"}},
			}},
			SNI: []string{"*.example.org"},
			Filters: mesh.Filters{
				Request: edit, Response: edit, Redirect: &mesh.Redirect{Scheme: "https", Host: "x", Path: &mesh.PathEdit{Value: "/"}, Port: 1, Status: 302},
				Rewrite: &mesh.Rewrite{Host: "y", Path: &mesh.PathEdit{Op: mesh.PathReplacePrefix, Value: "/b"}},
				Mirrors: []mesh.Mirror{{Backend: mesh.Backend{Service: reviews, Port: 1}, Numerator: 1, Denominator: 3}},
				CORS:    &mesh.CORS{AllowOrigins: []string{"*"}, AllowCredentials: true, AllowMethods: []string{"*"}, AllowHeaders: []string{"x"}, ExposeHeaders: []string{"y"}, MaxAge: time.Second},
			},
			Backends:       []mesh.Backend{{Service: reviews, Port: 80, Weight: 9, Invalid: "no", Filters: mesh.Filters{Request: edit}}},
			RequestTimeout: time.Second, BackendTimeout: time.Millisecond,
			Retry:       &mesh.Retry{Attempts: 2, Codes: []int{503}, Backoff: time.Second},
			Persistence: &mesh.Persistence{Name: "c", Header: true, Absolute: time.Hour, Idle: time.Minute, Permanent: true},
		}},
	}
}

func fullTargetPolicy() *mesh.Policy {
	text := []mesh.StringMatch{{Op: mesh.OpPrefix, Value: "x"}}
	blocks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	return &mesh.Policy{
		Key: mesh.PolicyKey{Namespace: "shop", Name: "p"}, Scope: mesh.ScopeTargets, Action: mesh.ActionCustom, DryRun: true,
		Targets:  []mesh.Target{{Service: reviews}, {Gateway: reviews}, {Class: true}},
		Provider: &mesh.Provider{Name: "e", GRPC: true, Service: reviews, Port: 9, Timeout: time.Second, IncludeRequestHeaders: text, AddHeaders: []mesh.Header{{Name: "a", Value: "b"}}},
		Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{
			Principals: text, SourceIPs: blocks, DestinationPorts: []uint16{80},
			HTTP: &mesh.HTTPMatch{
				Hosts: text, NotMethods: text, Paths: []mesh.PathPattern{{StringMatch: mesh.StringMatch{Value: "/{*}"}, Template: true}}, RemoteIPs: blocks,
				RequestPrincipals: text, Values: []mesh.NamedMatch{{Attribute: mesh.AttributeClaim, Name: []string{"a", "b"}, Values: text, NotValues: text}},
			},
		}}}}}},
	}
}

func TestWaypointResourcesAreReadAsTheyWereWritten(t *testing.T) {
	traffic := &mesh.Traffic{
		Service: reviews, Sources: []string{"DestinationRule/shop/reviews"},
		Settings: mesh.Settings{Balancer: mesh.Balancer{Kind: mesh.BalanceHash, Hash: mesh.HashKey{Header: "u"}}, RetryBudget: &mesh.RetryBudget{Percent: 20}},
		Ports:    map[uint16]mesh.Settings{80: {Outlier: mesh.Outlier{Off: true}}, 9: {}},
	}
	authentication := &mesh.Authentication{
		Key: mesh.PolicyKey{Namespace: "shop", Name: "a"}, Targets: []mesh.Target{{Service: reviews}},
		Tokens: []mesh.TokenRule{{Issuer: "i", Audiences: []string{"a"}, Keys: "{}", FromHeaders: []mesh.TokenHeader{{Name: "n", Prefix: "p"}}, ClaimHeaders: []mesh.ClaimHeader{{Header: "h", Claim: "c"}}, Leeway: time.Minute}},
	}
	for _, tt := range []struct {
		name string
		body []byte
		want Waypoint
	}{
		{"route/HTTPRoute/shop/r", MarshalRoute(fullRoute()), Waypoint{Route: fullRoute()}},
		{"policy/shop/p", MarshalTargetPolicy(fullTargetPolicy()), Waypoint{Policy: fullTargetPolicy()}},
		{"traffic/" + reviews.String(), MarshalTraffic(traffic), Waypoint{Traffic: traffic}},
		{"authentication/shop/a", MarshalAuthentication(authentication), Waypoint{Authentication: authentication}},
	} {
		got, err := UnmarshalWaypoint(tt.name, tt.body)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if d := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Prefix{})); d != "" {
			t.Errorf("%s was not read as written:\n%s", tt.name, d)
		}
		if _, err := UnmarshalWaypoint(strings.Replace(tt.name, "shop", "other", 1), tt.body); err == nil {
			t.Errorf("%s is taken under another name", tt.name)
		}
		if _, err := UnmarshalWaypoint(tt.name, append(tt.body, " {}"...)); err == nil {
			t.Errorf("%s is taken with something behind it", tt.name)
		}
		later := append([]byte(`{"LaterField":1,`), tt.body[1:]...)
		if _, err := UnmarshalWaypoint(tt.name, later); err == nil {
			t.Errorf("%s is taken with a field of a later version", tt.name)
		}
	}
}

func TestAPolicyThatCannotBeReadGuardsEverything(t *testing.T) {
	unknown := fullTargetPolicy()
	unknown.Action = mesh.ActionCustom + 1
	l4 := fullTargetPolicy()
	l4.Scope = mesh.ScopeNamespace
	for what, body := range map[string][]byte{
		"rubbish": []byte("{"), "an unknown action": MarshalTargetPolicy(unknown), "another scope": MarshalTargetPolicy(l4),
	} {
		w, err := UnmarshalWaypoint("policy/shop/p", body)
		if err == nil {
			t.Errorf("%s is taken", what)
		}
		want := &mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: "p"}, Scope: mesh.ScopeTargets, Targets: []mesh.Target{{Class: true}}}
		if d := cmp.Diff(want, w.Policy); d != "" {
			t.Errorf("%s does not close everything:\n%s", what, d)
		}
	}
	if _, err := UnmarshalWaypoint("later/shop/p", []byte("{}")); err == nil {
		t.Error("a resource of a kind that is not known is taken")
	}
}

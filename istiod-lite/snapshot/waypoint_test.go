package snapshot

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/xds"
)

func key(name string) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: "shop", Hostname: name + ".shop.svc.cluster.local"}
}

// behind is a service of that name behind a waypoint.
func behind(name, waypoint string) *mesh.Service {
	s := &mesh.Service{Name: name, Namespace: "shop", Hostname: key(name).Hostname}
	if waypoint != "" {
		s.Waypoint = mesh.GatewayAddress{Service: key(waypoint), Port: 15008}
	}
	return s
}

func mapOf[K comparable, V any](key func(V) K, all ...V) map[K]V {
	out := map[K]V{}
	for _, v := range all {
		out[key(v)] = v
	}
	return out
}

func routeTo(name, service string) *mesh.Route {
	return &mesh.Route{Key: mesh.RouteKey{Kind: mesh.RouteHTTP, Namespace: "shop", Name: name}, Parents: []mesh.RouteParent{{Service: key(service)}}}
}

func guard(name string, targets ...mesh.Target) *mesh.Policy {
	return &mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: name}, Scope: mesh.ScopeTargets, Targets: targets}
}

func shop() mesh.Model {
	return mesh.Model{
		Services: mapOf((*mesh.Service).Key, behind("reviews", "wp"), behind("ratings", "other"), behind("plain", "")),
		Routes:   mapOf(func(r *mesh.Route) mesh.RouteKey { return r.Key }, routeTo("r", "reviews"), routeTo("p", "plain")),
		Policies: mapOf(func(p *mesh.Policy) mesh.PolicyKey { return p.Key },
			guard("service", mesh.Target{Service: key("ratings")}), guard("gateway", mesh.Target{Gateway: key("wp")}), guard("class", mesh.Target{Class: true}),
			&mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: "l4"}, Scope: mesh.ScopeNamespace}),
		Traffic: map[mesh.ServiceKey]*mesh.Traffic{key("plain"): {Service: key("plain")}},
		Authentications: map[mesh.PolicyKey]*mesh.Authentication{
			{Namespace: "shop", Name: "a"}: {Key: mesh.PolicyKey{Namespace: "shop", Name: "a"}, Targets: []mesh.Target{{Service: key("reviews")}}},
		},
	}
}

func names(r xds.Resources) []string { return slices.Sorted(maps.Keys(r)) }

func TestAWaypointHoldsWhatItServes(t *testing.T) {
	w := ForWaypoints(nil, shop())
	traffic := "traffic/" + key("plain").String()
	for gateway, want := range map[string][]string{
		"wp":     {"authentication/shop/a", "policy/shop/class", "policy/shop/gateway", "route/HTTPRoute/shop/r", traffic},
		"other":  {"policy/shop/class", "policy/shop/service", traffic},
		"nobody": {"policy/shop/class", traffic},
	} {
		if d := cmp.Diff(want, names(w.Of(Gateway{"shop", gateway}))); d != "" {
			t.Errorf("waypoint %s holds (-want +got):\n%s", gateway, d)
		}
	}
	if got := names(w.Of(Gateway{"evil", "wp"})); len(got) != 2 {
		t.Errorf("a waypoint of that name in another namespace holds %v", got)
	}
	z := ForZtunnels(nil, shop())
	if d := cmp.Diff([]string{"shop/l4"}, names(z.Types[xds.TypeAuthorization])); d != "" {
		t.Errorf("ztunnels hold other policies than their own (-want +got):\n%s", d)
	}
}

func TestWhatDoesNotChangeIsNotMadeAnew(t *testing.T) {
	m := shop()
	before := ForWaypoints(nil, m)
	if after := ForWaypoints(before, m); !after.Same(before) {
		t.Error("the same model makes other resources")
	}
	changed := shop()
	changed.Traffic, changed.Services, changed.Policies, changed.Authentications = m.Traffic, m.Services, m.Policies, m.Authentications
	r := routeTo("r", "reviews")
	r.Generation = 2
	changed.Routes = maps.Clone(m.Routes)
	changed.Routes[r.Key] = r
	after := ForWaypoints(before, changed)
	if after.Same(before) {
		t.Error("a changed route changes nothing")
	}
	for name, r := range after.Of(Gateway{"shop", "wp"}) {
		if same := r == before.Of(Gateway{"shop", "wp"})[name]; same == (name == "route/HTTPRoute/shop/r") {
			t.Errorf("%s is the same resource: %v", name, same)
		}
	}
	changed.Policies = maps.Clone(changed.Policies)
	delete(changed.Policies, mesh.PolicyKey{Namespace: "shop", Name: "class"})
	changed.Services = maps.Clone(changed.Services)
	changed.Services[key("reviews")] = behind("reviews", "other")
	last := ForWaypoints(after, changed)
	if got := names(last.Of(Gateway{"shop", "wp"})); slices.Contains(got, "route/HTTPRoute/shop/r") || slices.Contains(got, "policy/shop/class") {
		t.Errorf("a waypoint keeps what it does not serve any more: %v", got)
	}
	if got := names(last.Of(Gateway{"shop", "other"})); !slices.Contains(got, "route/HTTPRoute/shop/r") {
		t.Errorf("the next waypoint does not get the route: %v", got)
	}
}

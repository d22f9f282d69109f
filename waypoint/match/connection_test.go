package match

import (
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

func tlsRoute(name string, created int64, backend string, names ...string) *mesh.Route {
	r := httpRoute(name, "echo", 443, mesh.RouteRule{SNI: names, Backends: to(backend, 443)})
	r.Key.Kind, r.Created = mesh.RouteTLS, created
	return r
}

func TestServerNames(t *testing.T) {
	exact := tlsRoute("exact", 9, "echo-v1", "a.example.com", "b.example.com")
	wild := tlsRoute("wild", 1, "echo-v2", "*.example.com")
	wilder := tlsRoute("wilder", 1, "echo-v3", "*.com")
	any := tlsRoute("any", 1, "echo")
	for _, tt := range []struct {
		sentence string
		routes   []*mesh.Route
		sni      string
		want     string
	}{
		{"an exact name beats a wildcard", []*mesh.Route{wild, exact}, "a.example.com", "echo-v1"},
		{"any of a rule's names", []*mesh.Route{wild, exact}, "b.example.com", "echo-v1"},
		{"a wildcard", []*mesh.Route{wild, exact}, "c.example.com", "echo-v2"},
		{"a wildcard stands for several labels", []*mesh.Route{wild, exact}, "d.c.example.com", "echo-v2"},
		{"the longest wildcard wins", []*mesh.Route{wilder, wild}, "c.example.com", "echo-v2"},
		{"a shorter wildcard for the rest", []*mesh.Route{wilder, wild}, "example.com", "echo-v3"},
		{"a wildcard is not its own name", []*mesh.Route{wild}, "example.com", "404"},
		{"a wildcard is not part of a label", []*mesh.Route{wild}, "evilexample.com", "404"},
		{"a wildcard is not an empty label", []*mesh.Route{wild}, ".example.com", "404"},
		{"a name is without case", []*mesh.Route{exact}, "A.Example.COM", "echo-v1"},
		{"a name may have its last dot", []*mesh.Route{exact}, "a.example.com.", "echo-v1"},
		{"a rule without names is for every name", []*mesh.Route{any, exact}, "x", "echo"},
		{"and for none", []*mesh.Route{any, exact}, "", "echo"},
		{"but last", []*mesh.Route{any, exact}, "a.example.com", "echo-v1"},
		{"no name, no rule for it", []*mesh.Route{exact, wild}, "", "404"},
		{"a dot", []*mesh.Route{exact, wild}, ".", "404"},
		{"of equal names the older route wins", []*mesh.Route{tlsRoute("a", 2, "echo-v2", "x.y"), tlsRoute("b", 1, "echo-v1", "X.Y")}, "x.y", "echo-v1"},
		{"no routes", nil, "x", "itself"},
	} {
		if got := leadsTo(compiled(t, service("echo"), 443, tt.routes...).FindTLS(tt.sni, spiffe.ID{})); got != tt.want {
			t.Errorf("%s: %q leads to %s, want %s", tt.sentence, tt.sni, got, tt.want)
		}
	}
	for _, name := range []string{"*", "a.*.b", "*a.b", "*.", ""} {
		r, err := Compile(service("echo"), 443, []*mesh.Route{tlsRoute("bad", 1, "echo-v1", name)})
		if got := r.FindTLS("a.b", spiffe.ID{}).Outcome; err == nil || got != NotFound {
			t.Errorf("the name %q: %v, error %v", name, got, err)
		}
	}
}

func TestPlainConnections(t *testing.T) {
	tcp := func(name, namespace string, created int64, backends ...string) *mesh.Route {
		r := httpRoute(name, "echo", 0)
		for _, b := range backends {
			r.Rules = append(r.Rules, mesh.RouteRule{Backends: to(b, 9090)})
		}
		r.Key.Kind, r.Key.Namespace, r.Created = mesh.RouteTCP, namespace, created
		return r
	}
	for _, tt := range []struct {
		sentence string
		routes   []*mesh.Route
		client   spiffe.ID
		want     string
	}{
		{"the first rule", []*mesh.Route{tcp("a", meshNamespace, 1, "echo-v1", "echo-v2")}, spiffe.ID{}, "echo-v1"},
		{"of the oldest route", []*mesh.Route{tcp("a", meshNamespace, 2, "echo-v1"), tcp("b", meshNamespace, 1, "echo-v2")}, spiffe.ID{}, "echo-v2"},
		{"of a client's own namespace", []*mesh.Route{tcp("a", meshNamespace, 1, "echo-v1"), tcp("b", "team", 2, "echo-v2")}, clientOf("team"), "echo-v2"},
		{"of the service's for the others", []*mesh.Route{tcp("a", meshNamespace, 1, "echo-v1"), tcp("b", "team", 2, "echo-v2")}, clientOf("any"), "echo-v1"},
		{"a route without rules leads nowhere", []*mesh.Route{tcp("a", meshNamespace, 1)}, spiffe.ID{}, "404"},
	} {
		if got := leadsTo(compiled(t, service("echo"), 9090, tt.routes...).FindTCP(tt.client)); got != tt.want {
			t.Errorf("%s: leads to %s, want %s", tt.sentence, got, tt.want)
		}
	}
}

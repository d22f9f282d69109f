package match

import (
	"fmt"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

const benchRoutes = 5_000

// many are routes of one service, each with one alternative.
func many(match func(i int) mesh.RequestMatch) []*mesh.Route {
	var out []*mesh.Route
	for i := range benchRoutes {
		out = append(out, httpRoute(fmt.Sprintf("route-%d", i), "echo", 80, mesh.RouteRule{
			Matches: []mesh.RequestMatch{match(i)}, Backends: to("echo-v1", 80),
		}))
	}
	return out
}

// searches are the ways in which thousands of routes differ, with a request
// for one in the middle.
var searches = []struct {
	name  string
	match func(i int) mesh.RequestMatch
	q     Request
}{
	{"exact", func(i int) mesh.RequestMatch {
		return mesh.RequestMatch{Path: pathExact(fmt.Sprintf("/api/v1/items/%d", i))}
	}, Request{Path: "/api/v1/items/2500"}},
	{"prefix", func(i int) mesh.RequestMatch {
		return mesh.RequestMatch{Path: pathPrefix(fmt.Sprintf("/api/v1/items/%d", i))}
	}, Request{Path: "/api/v1/items/2500/parts/7"}},
	{"regex", func(i int) mesh.RequestMatch {
		return mesh.RequestMatch{Path: mesh.PathMatch{Op: mesh.PathRegex, Value: fmt.Sprintf("/api/v1/items/%d/[0-9]+", i)}}
	}, Request{Path: "/api/v1/items/2500/7"}},
	{"header", func(i int) mesh.RequestMatch {
		return mesh.RequestMatch{Path: pathPrefix("/"), Headers: []mesh.ValueMatch{{Name: "env", Value: "prod"}, {Name: "tenant", Value: fmt.Sprint(i)}}}
	}, Request{Path: "/", Header: map[string][]string{"Tenant": {"2500"}, "Env": {"prod"}, "Accept": {"*/*"}, "User-Agent": {"x"}}}},
	{"query", func(i int) mesh.RequestMatch {
		return mesh.RequestMatch{Path: pathPrefix("/"), Query: []mesh.ValueMatch{{Name: "tenant", Value: fmt.Sprint(i)}}}
	}, Request{Path: "/", Query: "page=3&tenant=2500"}},
	{"names", func(i int) mesh.RequestMatch {
		return mesh.RequestMatch{Path: pathPrefix("/"), Headers: []mesh.ValueMatch{{Name: fmt.Sprintf("X-Tenant-%d", i), Value: "yes"}}}
	}, Request{Path: "/", Header: map[string][]string{"X-Tenant-2500": {"yes"}, "Accept": {"*/*"}, "User-Agent": {"x"}}}},
}

func BenchmarkFind(b *testing.B) {
	for _, s := range searches {
		b.Run(s.name, func(b *testing.B) {
			r, err := Compile(service("echo"), 80, many(s.match))
			if err != nil {
				b.Fatal(err)
			}
			q := s.q
			q.Method, q.Client = "GET", clientOf(meshNamespace)
			b.ReportAllocs()
			for b.Loop() {
				if r.Find(&q).Outcome != Matched {
					b.Fatal("not found")
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	routes := many(searches[1].match)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(service("echo"), 80, routes); err != nil {
			b.Fatal(err)
		}
	}
}

func TestThousandsOfRoutesAreNotScanned(t *testing.T) {
	for _, s := range searches {
		routes := compiled(t, service("echo"), 80, many(s.match)...)
		q := s.q
		q.Method = "GET"
		if d := routes.Find(&q); d.Outcome != Matched || d.Route.Key.Name != "route-2500" {
			t.Errorf("%s: %+v", s.name, d)
		}
		if n := testing.AllocsPerRun(100, func() { routes.Find(&q) }); n != 0 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
		if n := longestList(routes.producer); n > spreadFrom {
			t.Errorf("%s: %d candidates are asked one by one", s.name, n)
		}
	}
}

// longestList is the most candidates that one request may have to go through in
// one place.
func longestList(g *group) int {
	longest := 0
	var visit func(b *bucket)
	visit = func(b *bucket) {
		longest = max(longest, len(b.list))
		for _, by := range []map[string]map[string]*bucket{b.headers, b.query} {
			for _, buckets := range by {
				for _, inner := range buckets {
					visit(inner)
				}
			}
		}
	}
	var walk func(n *node)
	walk = func(n *node) {
		visit(&n.bucket)
		visit(&n.loose)
		for _, child := range n.children {
			walk(child)
		}
	}
	walk(&g.requests.prefixes)
	for _, b := range g.requests.exact {
		visit(b)
	}
	return longest
}

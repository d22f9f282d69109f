package match

import (
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// The objects of the Gateway API's mesh conformance suite, as routes.

const meshNamespace = "gateway-conformance-mesh"

func service(name string) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: meshNamespace, Hostname: name + "." + meshNamespace + ".svc.cluster.local"}
}

func clientOf(namespace string) spiffe.ID {
	return spiffe.ID{TrustDomain: "cluster.local", Namespace: namespace, ServiceAccount: "default"}
}

func to(name string, port uint16) []mesh.Backend {
	return []mesh.Backend{{Service: service(name), Port: port, Weight: 1}}
}

func pathPrefix(p string) mesh.PathMatch { return mesh.PathMatch{Op: mesh.PathPrefix, Value: p} }
func pathExact(p string) mesh.PathMatch  { return mesh.PathMatch{Op: mesh.PathExact, Value: p} }

func httpRoute(name, parent string, port uint16, rules ...mesh.RouteRule) *mesh.Route {
	for i := range rules {
		rules[i].Index = i
	}
	return &mesh.Route{
		Key:     mesh.RouteKey{Kind: mesh.RouteHTTP, Namespace: meshNamespace, Name: name},
		Parents: []mesh.RouteParent{{Service: service(parent), Port: port}},
		Rules:   rules,
	}
}

func compiled(t *testing.T, service mesh.ServiceKey, port uint16, routes ...*mesh.Route) *Routes {
	t.Helper()
	r, err := Compile(service, port, routes)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// names the service that a decision leads to; 404 and so on for the others.
func leadsTo(d Decision) string {
	switch d.Outcome {
	case Default:
		return "itself"
	case NotFound:
		return "404"
	}
	b, ok := d.Choose(func(int) int { return 0 })
	if !ok {
		return "500"
	}
	for _, name := range []string{"echo", "echo-v1", "echo-v2", "echo-v3"} {
		if b.Service == service(name) {
			return name
		}
	}
	return b.Service.Hostname
}

func header(name, value string) map[string][]string { return map[string][]string{name: {value}} }

func TestTheConformanceSuitesMatches(t *testing.T) {
	match := func(p string) []mesh.RequestMatch { return []mesh.RequestMatch{{Path: pathPrefix(p)}} }
	is := func(name, value string) []mesh.ValueMatch { return []mesh.ValueMatch{{Name: name, Value: value}} }
	matching := httpRoute("matching", "echo", 80,
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/")}, {Path: pathPrefix("/"), Headers: is("version", "one")}}, Backends: to("echo-v1", 8080)},
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/v2")}, {Path: pathPrefix("/"), Headers: is("version", "two")}}, Backends: to("echo-v2", 8080)})
	named := httpRoute("named", "echo", 80,
		mesh.RouteRule{Name: "named-rule", Matches: match("/named"), Backends: to("echo-v1", 8080)},
		mesh.RouteRule{Matches: match("/unnamed"), Backends: to("echo-v2", 8080)})
	split := httpRoute("split", "echo", 0,
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathExact("/v1")}}, Backends: to("echo-v1", 80)},
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathExact("/v2")}}, Backends: to("echo-v2", 80)})
	simple := httpRoute("simple", "echo", 80, mesh.RouteRule{Backends: to("echo-v1", 8080)})
	query := httpRoute("query", "echo", 80,
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/"), Query: is("animal", "whale")}}, Backends: to("echo-v1", 8080)},
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/"), Query: is("animal", "dolphin")}}, Backends: to("echo-v2", 8080)},
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/path1"), Query: is("animal", "whale")}}, Backends: to("echo-v1", 8080)},
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/"), Headers: is("version", "one"), Query: is("animal", "whale")}}, Backends: to("echo-v2", 8080)},
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/path3"), Query: is("animal", "shark")}, {Path: pathPrefix("/path4"), Headers: is("version", "three"), Query: is("animal", "kraken")}}, Backends: to("echo-v1", 8080)},
		mesh.RouteRule{Matches: match("/path5"), Backends: to("echo-v1", 8080)},
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/"), Query: is("animal", "hydra")}}, Backends: to("echo-v2", 8080)})

	for _, tt := range []struct {
		sentence string
		routes   []*mesh.Route
		q        Request
		want     string
	}{
		{"MeshBasic: without routes the service itself answers", nil, Request{Path: "/"}, "itself"},
		{"MeshTrafficSplit: an exact path", []*mesh.Route{split}, Request{Path: "/v1"}, "echo-v1"},
		{"MeshTrafficSplit: another", []*mesh.Route{split}, Request{Path: "/v2"}, "echo-v2"},
		{"MeshTrafficSplit: nothing else", []*mesh.Route{split}, Request{Path: "/v2/"}, "404"},
		{"MeshHTTPRouteSimpleSameNamespace: a rule without matches", []*mesh.Route{simple}, Request{Path: "/any"}, "echo-v1"},

		{"MeshHTTPRouteMatching: the root", []*mesh.Route{matching}, Request{Path: "/"}, "echo-v1"},
		{"MeshHTTPRouteMatching: a path of no rule", []*mesh.Route{matching}, Request{Path: "/example"}, "echo-v1"},
		{"MeshHTTPRouteMatching: a header for the first rule", []*mesh.Route{matching}, Request{Path: "/", Header: header("Version", "one")}, "echo-v1"},
		{"MeshHTTPRouteMatching: a prefix", []*mesh.Route{matching}, Request{Path: "/v2"}, "echo-v2"},
		{"MeshHTTPRouteMatching: a prefix with its slash", []*mesh.Route{matching}, Request{Path: "/v2/"}, "echo-v2"},
		{"MeshHTTPRouteMatching: below a prefix", []*mesh.Route{matching}, Request{Path: "/v2/example"}, "echo-v2"},
		{"MeshHTTPRouteMatching: a header outranks the bare root", []*mesh.Route{matching}, Request{Path: "/", Header: header("Version", "two")}, "echo-v2"},
		{"MeshHTTPRouteMatching: a prefix ends with its segment", []*mesh.Route{matching}, Request{Path: "/v2example"}, "echo-v1"},
		{"MeshHTTPRouteMatching: a prefix begins at the root", []*mesh.Route{matching}, Request{Path: "/foo/v2/example"}, "echo-v1"},

		{"MeshHTTPRouteNamedRule: with a name", []*mesh.Route{named}, Request{Path: "/named"}, "echo-v1"},
		{"MeshHTTPRouteNamedRule: without", []*mesh.Route{named}, Request{Path: "/unnamed"}, "echo-v2"},

		{"MeshHTTPRouteQueryParamMatching: a value", []*mesh.Route{query}, Request{Path: "/", Query: "animal=whale"}, "echo-v1"},
		{"MeshHTTPRouteQueryParamMatching: another value", []*mesh.Route{query}, Request{Path: "/", Query: "animal=dolphin"}, "echo-v2"},
		{"MeshHTTPRouteQueryParamMatching: further parameters do not matter", []*mesh.Route{query}, Request{Path: "/", Query: "animal=dolphin&color=blue"}, "echo-v2"},
		{"MeshHTTPRouteQueryParamMatching: nor when they come first", []*mesh.Route{query}, Request{Path: "/", Query: "ANIMAL=Whale&animal=dolphin"}, "echo-v2"},
		{"MeshHTTPRouteQueryParamMatching: with a path", []*mesh.Route{query}, Request{Path: "/path1", Query: "animal=whale"}, "echo-v1"},
		{"MeshHTTPRouteQueryParamMatching: with a header", []*mesh.Route{query}, Request{Path: "/", Query: "animal=whale", Header: header("Version", "one")}, "echo-v2"},
		{"MeshHTTPRouteQueryParamMatching: the first alternative", []*mesh.Route{query}, Request{Path: "/path3", Query: "animal=shark"}, "echo-v1"},
		{"MeshHTTPRouteQueryParamMatching: the second alternative", []*mesh.Route{query}, Request{Path: "/path4", Query: "animal=kraken", Header: header("Version", "three")}, "echo-v1"},
		{"MeshHTTPRouteQueryParamMatching: a longer path beats a parameter", []*mesh.Route{query}, Request{Path: "/path5", Query: "animal=hydra"}, "echo-v1"},
		{"MeshHTTPRouteQueryParamMatching: a value of no rule", []*mesh.Route{query}, Request{Path: "/", Query: "animal=cat"}, "404"},
		{"MeshHTTPRouteQueryParamMatching: a name is exact", []*mesh.Route{query}, Request{Path: "/", Query: "Animal=whale"}, "404"},
		{"MeshHTTPRouteQueryParamMatching: no query", []*mesh.Route{query}, Request{Path: "/"}, "404"},
		{"MeshHTTPRouteQueryParamMatching: a path without its parameter", []*mesh.Route{query}, Request{Path: "/path3"}, "404"},
		{"MeshHTTPRouteQueryParamMatching: a parameter and path without their header", []*mesh.Route{query}, Request{Path: "/path4", Query: "animal=kraken"}, "404"},
	} {
		tt.q.Client = clientOf(meshNamespace)
		if tt.q.Method == "" {
			tt.q.Method = "GET"
		}
		if got := leadsTo(compiled(t, service("echo"), 80, tt.routes...).Find(&tt.q)); got != tt.want {
			t.Errorf("%s: leads to %s, want %s", tt.sentence, got, tt.want)
		}
	}
}

func TestTheConformanceSuitesParents(t *testing.T) {
	rule := mesh.RouteRule{Filters: mesh.Filters{Response: &mesh.HeaderEdit{Set: []mesh.Header{{Name: "X-Header-Set", Value: "it"}}}}, Backends: to("echo-v1", 80)}
	ported := httpRoute("ported", "echo-v1", 80, rule)
	portless := httpRoute("portless", "echo-v2", 0, rule)
	consumer := httpRoute("consumer", "echo-v1", 0, rule)
	consumer.Key.Namespace = meshNamespace + "-consumer"
	for _, tt := range []struct {
		sentence string
		route    *mesh.Route
		service  string
		port     uint16
		client   spiffe.ID
		want     Outcome
	}{
		{"MeshPorts: the port of the parent", ported, "echo-v1", 80, clientOf(meshNamespace), Matched},
		{"MeshPorts: another port", ported, "echo-v1", 8080, clientOf(meshNamespace), Default},
		{"MeshPorts: no port is every port", portless, "echo-v2", 80, clientOf(meshNamespace), Matched},
		{"MeshPorts: every port", portless, "echo-v2", 8080, clientOf(meshNamespace), Matched},
		{"MeshFrontend: another service", portless, "echo-v1", 80, clientOf(meshNamespace), Default},
		{"MeshConsumerRoute: a client of the route's namespace", consumer, "echo-v1", 80, clientOf(meshNamespace + "-consumer"), Matched},
		{"MeshConsumerRoute: a client of the service's namespace", consumer, "echo-v1", 80, clientOf(meshNamespace), Default},
		{"MeshConsumerRoute: a client without an identity", consumer, "echo-v1", 80, spiffe.ID{}, Default},
	} {
		q := Request{Method: "GET", Path: "/", Host: "another.host", Client: tt.client}
		if got := compiled(t, service(tt.service), tt.port, tt.route).Find(&q).Outcome; got != tt.want {
			t.Errorf("%s: %v, want %v", tt.sentence, got, tt.want)
		}
	}
}

func TestTheConformanceSuitesWeights(t *testing.T) {
	for _, kind := range []mesh.RouteKind{mesh.RouteHTTP, mesh.RouteGRPC} {
		route := httpRoute("weights", "echo", 0, mesh.RouteRule{Backends: []mesh.Backend{
			{Service: service("echo-v1"), Port: 8080, Weight: 70},
			{Service: service("echo-v2"), Port: 8080, Weight: 30},
			{Service: service("echo-v3"), Port: 8080, Weight: 0, Invalid: "it does not exist"},
		}})
		route.Key.Kind = kind
		d := compiled(t, service("echo"), 80, route).Find(&Request{Method: "POST", Path: "/a.Service/Call"})
		seen := map[string]int{}
		for n := range 100 {
			b, ok := d.Choose(func(total int) int {
				if total != 100 {
					t.Fatalf("%v: weights sum up to %d", kind, total)
				}
				return n
			})
			if !ok {
				t.Errorf("%v: number %d has no backend", kind, n)
			}
			seen[b.Service.Hostname]++
		}
		if seen[service("echo-v1").Hostname] != 70 || seen[service("echo-v2").Hostname] != 30 || len(seen) != 2 {
			t.Errorf("%v: the shares are %v", kind, seen)
		}
	}
}

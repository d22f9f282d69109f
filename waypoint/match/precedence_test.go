package match

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// rival is a route of one rule with one alternative.
func rival(name string, created int64, m mesh.RequestMatch) *mesh.Route {
	r := httpRoute(name, "echo", 80, mesh.RouteRule{Matches: []mesh.RequestMatch{m}, Backends: to("echo-v1", 80)})
	r.Created = created
	return r
}

func ofKind(kind mesh.RouteKind, r *mesh.Route) *mesh.Route {
	r.Key.Kind = kind
	return r
}

func TestPrecedence(t *testing.T) {
	values := func(names ...string) []mesh.ValueMatch {
		var out []mesh.ValueMatch
		for _, n := range names {
			out = append(out, mesh.ValueMatch{Name: n, Value: "1"})
		}
		return out
	}
	regex := func(expr string) mesh.PathMatch { return mesh.PathMatch{Op: mesh.PathRegex, Value: expr} }
	grpc := func(service, method string, regex bool, headers ...string) mesh.RequestMatch {
		return mesh.RequestMatch{Call: &mesh.CallMatch{Service: service, Method: method, Regex: regex}, Headers: values(headers...)}
	}
	q := Request{Method: "GET", Path: "/a/b", Query: "p=1&q=1", Header: map[string][]string{"X": {"1"}, "Y": {"1"}}}

	// Each pair is given in both orders; the loser is older in each but those
	// about age.
	for _, tt := range []struct {
		sentence      string
		winner, loser mesh.RequestMatch
	}{
		{"an exact path beats a prefix that is the same", mesh.RequestMatch{Path: pathExact("/a/b")}, mesh.RequestMatch{Path: pathPrefix("/a/b"), Method: "GET", Headers: values("X", "Y"), Query: values("p", "q")}},
		{"an exact path beats an expression", mesh.RequestMatch{Path: pathExact("/a/b")}, mesh.RequestMatch{Path: regex("/a/b"), Method: "GET", Headers: values("X", "Y")}},
		{"a longer prefix beats a shorter one", mesh.RequestMatch{Path: pathPrefix("/a/b")}, mesh.RequestMatch{Path: pathPrefix("/a"), Method: "GET", Headers: values("X", "Y"), Query: values("p", "q")}},
		{"a prefix beats an expression", mesh.RequestMatch{Path: pathPrefix("/a")}, mesh.RequestMatch{Path: regex("/a/b"), Method: "GET", Headers: values("X", "Y")}},
		{"an expression beats the root", mesh.RequestMatch{Path: regex("/a/.")}, mesh.RequestMatch{Path: pathPrefix("/"), Method: "GET", Headers: values("X", "Y"), Query: values("p", "q")}},
		{"an expression beats no path", mesh.RequestMatch{Path: regex("/a/.")}, mesh.RequestMatch{Method: "GET", Headers: values("X", "Y")}},
		{"a method beats headers", mesh.RequestMatch{Path: pathPrefix("/a"), Method: "GET"}, mesh.RequestMatch{Path: pathPrefix("/a"), Headers: values("X", "Y"), Query: values("p", "q")}},
		{"more headers beat fewer", mesh.RequestMatch{Path: pathPrefix("/a"), Headers: values("X", "Y")}, mesh.RequestMatch{Path: pathPrefix("/a"), Headers: values("X"), Query: values("p", "q")}},
		{"a header that is said twice counts once", mesh.RequestMatch{Headers: values("X", "Y")}, mesh.RequestMatch{Headers: values("X", "x", "X")}},
		{"more parameters beat fewer", mesh.RequestMatch{Path: pathPrefix("/a"), Query: values("p", "q")}, mesh.RequestMatch{Path: pathPrefix("/a"), Query: values("p")}},
		{"a slash at the end makes a prefix no longer", mesh.RequestMatch{Path: pathPrefix("/a"), Method: "GET"}, mesh.RequestMatch{Path: pathPrefix("/a/")}},
	} {
		for _, order := range []string{"winner first", "loser first"} {
			routes := []*mesh.Route{rival("z-winner", 2, tt.winner), rival("a-loser", 1, tt.loser)}
			if order == "loser first" {
				routes[0], routes[1] = routes[1], routes[0]
			}
			if d := compiled(t, service("echo"), 80, routes...).Find(&q); d.Outcome != Matched || d.Route.Key.Name != "z-winner" {
				t.Errorf("%s (%s): %+v", tt.sentence, order, d)
			}
		}
	}

	for _, tt := range []struct {
		sentence      string
		winner, loser mesh.RequestMatch
	}{
		{"a service and method beat a service", grpc("a", "b", false), grpc("a", "", false, "X", "Y")},
		{"a service beats a method", grpc("a", "", false), grpc("", "b", false, "X", "Y")},
		{"a service's name beats an expression", grpc("a", "", false), grpc("a|b", "b", true, "X", "Y")},
		{"an expression of a service beats a method's name", grpc("a|b", "", true), grpc("", "b", false, "X", "Y")},
		{"an expression of a method beats none", grpc("a", "b", true), grpc("a", "", true, "X", "Y")},
		{"a method beats headers only", grpc("", "b", false), grpc("", "", false, "X", "Y")},
		{"more headers beat fewer", grpc("a", "b", false, "X", "Y"), grpc("a", "b", false, "X")},
		{"headers beat nothing", grpc("", "", false, "X"), mesh.RequestMatch{}},
	} {
		routes := []*mesh.Route{ofKind(mesh.RouteGRPC, rival("z-winner", 2, tt.winner)), ofKind(mesh.RouteGRPC, rival("a-loser", 1, tt.loser))}
		if d := compiled(t, service("echo"), 80, routes...).Find(&q); d.Outcome != Matched || d.Route.Key.Name != "z-winner" {
			t.Errorf("gRPC: %s: %+v", tt.sentence, d)
		}
	}
}

func TestAmongEquals(t *testing.T) {
	same := mesh.RequestMatch{Path: pathPrefix("/a")}
	q := Request{Method: "GET", Path: "/a"}
	two := httpRoute("two", "echo", 80,
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/b")}, same, same}},
		mesh.RouteRule{Matches: []mesh.RequestMatch{same}})
	for _, tt := range []struct {
		sentence    string
		routes      []*mesh.Route
		want        string
		rule, match int
	}{
		{"the older route wins", []*mesh.Route{rival("a", 2, same), rival("b", 1, same)}, "b", 0, 0},
		{"of the same age, the name decides", []*mesh.Route{rival("b", 1, same), rival("a", 1, same)}, "a", 0, 0},
		{"within a route, the first rule and its first alternative", []*mesh.Route{two}, "two", 0, 1},
		{"rules of all routes are merged", []*mesh.Route{rival("a", 1, mesh.RequestMatch{Path: pathPrefix("/")}), rival("b", 2, same)}, "b", 0, 0},
	} {
		d := compiled(t, service("echo"), 80, tt.routes...).Find(&q)
		if d.Outcome != Matched || d.Route.Key.Name != tt.want || d.Rule != tt.rule || d.Match != tt.match {
			t.Errorf("%s: %+v", tt.sentence, d)
		}
	}
}

func TestMatches(t *testing.T) {
	header := func(name, value string) mesh.RequestMatch {
		return mesh.RequestMatch{Headers: []mesh.ValueMatch{{Name: name, Value: value}}}
	}
	headerRE := func(name, value string) mesh.RequestMatch {
		return mesh.RequestMatch{Headers: []mesh.ValueMatch{{Name: name, Value: value, Regex: true}}}
	}
	query := func(name, value string, regex bool) mesh.RequestMatch {
		return mesh.RequestMatch{Query: []mesh.ValueMatch{{Name: name, Value: value, Regex: regex}}}
	}
	has := func(name string, values ...string) Request { return Request{Header: map[string][]string{name: values}} }
	at := func(path string) Request { return Request{Path: path} }
	asks := func(query string) Request { return Request{Query: query} }
	regex := func(expr string) mesh.RequestMatch {
		return mesh.RequestMatch{Path: mesh.PathMatch{Op: mesh.PathRegex, Value: expr}}
	}
	for _, tt := range []struct {
		sentence string
		m        mesh.RequestMatch
		q        Request
		want     bool
	}{
		{"a header name is without case", header("x-USER", "jason"), has("X-User", "jason"), true},
		{"a header value is exact", header("X-User", "jason"), has("X-User", "Jason"), false},
		{"a header that is missing", header("X-User", "jason"), has("X-Other", "jason"), false},
		{"the first value of a repeated header counts", header("X-User", "jason"), has("X-User", "jason", "other"), true},
		{"a later value does not", header("X-User", "jason"), has("X-User", "other", "jason"), false},
		{"an empty value is a value", header("X-User", ""), has("X-User", ""), true},
		{"but none is not", header("X-User", ""), has("X-Other", ""), false},
		{"Host is a header", header("host", "echo"), Request{Host: "echo"}, true},
		{"of equal names the first match counts", mesh.RequestMatch{Headers: []mesh.ValueMatch{{Name: "x", Value: "1"}, {Name: "X", Value: "2"}}}, has("X", "1"), true},
		{"an expression matches the whole value", headerRE("X", "ab?"), has("X", "ab"), true},
		{"and not a part of it", headerRE("X", "ab?"), has("X", "abc"), false},
		{"alternatives of an expression are whole too", headerRE("X", "a|b"), has("X", "bc"), false},
		{"an expression for everything needs the header", headerRE("X", ".*"), has("Y", "a"), false},

		{"a parameter", query("q", "1", false), asks("p=2&q=1"), true},
		{"the first value of a repeated parameter counts", query("q", "1", false), asks("q=1&q=2"), true},
		{"a later value does not", query("q", "1", false), asks("q=2&q=1"), false},
		{"a parameter name is exact", query("q", "1", false), asks("Q=1"), false},
		{"a parameter is unescaped", query("a b", "x&y", false), asks("a+b=x%26y"), true},
		{"a parameter without a value is empty", query("q", "", false), asks("q"), true},
		{"a semicolon is data", query("q", "1;p=2", false), asks("q=1;p=2"), true},
		{"an expression of a parameter", query("q", "[0-9]+", true), asks("q=17"), true},
		{"an expression of a whole parameter", query("q", "[0-9]+", true), asks("q=17a"), false},

		{"a method", mesh.RequestMatch{Method: "DELETE"}, Request{Method: "DELETE"}, true},
		{"a method is exact", mesh.RequestMatch{Method: "DELETE"}, Request{Method: "delete"}, false},

		{"an exact path", mesh.RequestMatch{Path: pathExact("/a")}, at("/a"), true},
		{"an exact path has no slash at its end", mesh.RequestMatch{Path: pathExact("/a")}, at("/a/"), false},
		{"an exact path is with case", mesh.RequestMatch{Path: pathExact("/a")}, at("/A"), false},
		{"a prefix is whole segments", mesh.RequestMatch{Path: pathPrefix("/a")}, at("/ab"), false},
		{"an escaped slash does not end a segment", mesh.RequestMatch{Path: pathPrefix("/a")}, at("/a%2Fb"), false},
		{"an escaped letter is the letter", mesh.RequestMatch{Path: pathPrefix("/a")}, at("/%61/b"), true},
		{"dots do not climb out of a prefix", mesh.RequestMatch{Path: pathPrefix("/a")}, at("/a/../b"), false},
		{"dots climb into a prefix", mesh.RequestMatch{Path: pathPrefix("/a")}, at("/b/%2e%2e/a"), true},
		{"an escape in a route is brought into the same form", mesh.RequestMatch{Path: pathExact("/%7euser/%c3%a4")}, at("/~user/%C3%A4"), true},
		{"an expression matches a whole path", regex("/a/.*"), at("/a/b/c"), true},
		{"an expression is not the beginning of a path", regex("/a"), at("/a/b"), false},
		{"a path without a form matches nothing", mesh.RequestMatch{}, at("/%zz"), false},
		{"a root prefix matches the server itself", mesh.RequestMatch{Path: pathPrefix("/")}, at("*"), true},
	} {
		if tt.q.Path == "" {
			tt.q.Path = "/"
		}
		d := compiled(t, service("echo"), 80, rival("route", 1, tt.m)).Find(&tt.q)
		if got := d.Outcome == Matched; got != tt.want {
			t.Errorf("%s: %v, want %v", tt.sentence, got, tt.want)
		}
	}
}

func TestCallMatches(t *testing.T) {
	for _, tt := range []struct {
		sentence string
		call     *mesh.CallMatch
		path     string
		want     bool
	}{
		{"a service and method", &mesh.CallMatch{Service: "pkg.Svc", Method: "Get"}, "/pkg.Svc/Get", true},
		{"another method", &mesh.CallMatch{Service: "pkg.Svc", Method: "Get"}, "/pkg.Svc/Put", false},
		{"names are with case", &mesh.CallMatch{Service: "pkg.Svc", Method: "Get"}, "/pkg.svc/Get", false},
		{"a service", &mesh.CallMatch{Service: "pkg.Svc"}, "/pkg.Svc/Anything", true},
		{"a service is a whole name", &mesh.CallMatch{Service: "pkg.Svc"}, "/pkg.Svc2/Get", false},
		{"a service without a method is no call", &mesh.CallMatch{Service: "pkg.Svc"}, "/pkg.Svc", false},
		{"a service with more than a method is no call", &mesh.CallMatch{Service: "pkg.Svc"}, "/pkg.Svc/Get/more", false},
		{"a method", &mesh.CallMatch{Method: "Get"}, "/any.Svc/Get", true},
		{"another service's method", &mesh.CallMatch{Method: "Get"}, "/any.Svc/Put", false},
		{"an expression of a service", &mesh.CallMatch{Service: `pkg\..*`, Regex: true}, "/pkg.Svc/Get", true},
		{"an expression is of the whole name", &mesh.CallMatch{Service: "pkg", Regex: true}, "/pkg.Svc/Get", false},
		{"an expression of a method", &mesh.CallMatch{Method: "(Get|List).*", Regex: true}, "/pkg.Svc/ListAll", true},
		{"everything", &mesh.CallMatch{}, "/x", true},
		{"nothing said", nil, "/pkg.Svc/Get", true},
	} {
		r := compiled(t, service("echo"), 80, ofKind(mesh.RouteGRPC, rival("route", 1, mesh.RequestMatch{Call: tt.call})))
		if got := r.Find(&Request{Method: "POST", Path: tt.path}).Outcome == Matched; got != tt.want {
			t.Errorf("%s: %v, want %v", tt.sentence, got, tt.want)
		}
	}
}

func TestProducersAndConsumers(t *testing.T) {
	const consumers = "team"
	of := func(namespace, path string) *mesh.Route {
		r := rival("of-"+namespace, 1, mesh.RequestMatch{Path: pathPrefix(path)})
		r.Key.Namespace = namespace
		return r
	}
	producer, consumer := of(meshNamespace, "/producer"), of(consumers, "/consumer")
	stronger := ofKind(mesh.RouteGRPC, of(consumers, "/"))
	for _, tt := range []struct {
		sentence string
		routes   []*mesh.Route
		client   spiffe.ID
		path     string
		want     string
	}{
		{"a producer's route is for clients of its namespace", []*mesh.Route{producer}, clientOf(meshNamespace), "/producer", "echo-v1"},
		{"and of all others", []*mesh.Route{producer}, clientOf("anywhere"), "/producer", "echo-v1"},
		{"and without an identity", []*mesh.Route{producer}, spiffe.ID{}, "/producer", "echo-v1"},
		{"a consumer's route is for clients of its namespace", []*mesh.Route{consumer}, clientOf(consumers), "/consumer", "echo-v1"},
		{"not for those of the service's", []*mesh.Route{consumer}, clientOf(meshNamespace), "/consumer", "itself"},
		{"not for those of a third", []*mesh.Route{consumer}, clientOf("anywhere"), "/consumer", "itself"},
		{"not for those without an identity", []*mesh.Route{consumer}, spiffe.ID{}, "/consumer", "itself"},
		{"a consumer's routes win whole", []*mesh.Route{producer, consumer}, clientOf(consumers), "/producer", "404"},
		{"and leave the producer's to the others", []*mesh.Route{producer, consumer}, clientOf("anywhere"), "/producer", "echo-v1"},
		{"what others do not see they do not match", []*mesh.Route{producer, consumer}, clientOf("anywhere"), "/consumer", "404"},
		{"a consumer's stronger kind does not silence the producer's", []*mesh.Route{producer, stronger}, clientOf("anywhere"), "/producer", "echo-v1"},
	} {
		r := compiled(t, service("echo"), 80, tt.routes...)
		if got := leadsTo(r.Find(&Request{Path: tt.path, Client: tt.client})); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.sentence, got, tt.want)
		}
	}
}

func TestKindsOfOnePort(t *testing.T) {
	var routes []*mesh.Route
	for _, kind := range []mesh.RouteKind{mesh.RouteTCP, mesh.RouteTLS, mesh.RouteHTTP, mesh.RouteGRPC} {
		routes = append(routes, ofKind(kind, rival(kind.String(), 1, mesh.RequestMatch{})))
		r := compiled(t, service("echo"), 80, routes...)
		want := map[mesh.RouteKind]Protocol{mesh.RouteTCP: ProtocolTCP, mesh.RouteTLS: ProtocolTLS, mesh.RouteHTTP: ProtocolHTTP, mesh.RouteGRPC: ProtocolGRPC}[kind]
		if got := r.Protocol(clientOf("any")); got != want {
			t.Errorf("%s joins: protocol %v, want %v", kind, got, want)
		}
		found := map[string]Decision{"request": r.Find(&Request{Path: "/"}), "TLS": r.FindTLS("a", spiffe.ID{}), "TCP": r.FindTCP(spiffe.ID{})}
		for asked, d := range found {
			speaks := map[Protocol]string{ProtocolTCP: "TCP", ProtocolTLS: "TLS", ProtocolHTTP: "request", ProtocolGRPC: "request"}[want]
			if (d.Outcome == Matched) != (asked == speaks) || d.Outcome == NotFound {
				t.Errorf("%s joins: a %s is %v", kind, asked, d.Outcome)
			}
			if d.Outcome == Matched && d.Route.Key.Kind != kind {
				t.Errorf("%s joins: a %s takes %s", kind, asked, d.Route.Key)
			}
		}
	}
	var none *Routes
	if none.Protocol(spiffe.ID{}) != ProtocolUnknown || none.Find(&Request{Path: "/"}).Outcome != Default || none.FindTCP(spiffe.ID{}).Outcome != Default {
		t.Error("no routes say something")
	}
}

// throw is dice that show i, and like real ones cannot be thrown for nothing.
func throw(t *testing.T, i int) func(n int) int {
	return func(n int) int {
		if n <= i {
			t.Errorf("asked for a number below %d", n)
		}
		return i
	}
}

func TestBackends(t *testing.T) {
	backend := func(name string, weight uint32, invalid string) mesh.Backend {
		return mesh.Backend{Service: service(name), Port: 80, Weight: weight, Invalid: invalid}
	}
	for _, tt := range []struct {
		sentence string
		backends []mesh.Backend
		want     string // what each throw of the dice leads to
	}{
		{"one", []mesh.Backend{backend("echo-v1", 1, "")}, "echo-v1"},
		{"shares", []mesh.Backend{backend("echo-v1", 2, ""), backend("echo-v2", 1, "")}, "echo-v1 echo-v1 echo-v2"},
		{"a weight of 0 is never chosen", []mesh.Backend{backend("echo-v3", 0, ""), backend("echo-v1", 1, ""), backend("echo-v3", 0, "")}, "echo-v1"},
		{"an invalid one keeps its share", []mesh.Backend{backend("echo-v1", 1, ""), backend("echo-v3", 2, "gone")}, "echo-v1 500gone 500gone"},
		{"an invalid one of weight 0 spoils nothing", []mesh.Backend{backend("echo-v1", 1, ""), backend("echo-v3", 0, "gone")}, "echo-v1"},
		{"all of weight 0", []mesh.Backend{backend("echo-v1", 0, ""), backend("echo-v2", 0, "")}, "500"},
		{"none at all", nil, "500"},
		{"the largest weights", []mesh.Backend{backend("echo-v1", 1<<32-1, ""), backend("echo-v2", 1<<32-1, "")}, "echo-v1"},
	} {
		d := decided(t, mesh.RouteRule{Backends: tt.backends}, &Request{Path: "/"})
		var got []string
		for i := range len(strings.Fields(tt.want)) {
			if b, ok := d.Choose(throw(t, i)); ok {
				got = append(got, strings.Split(b.Service.Hostname, ".")[0])
			} else {
				got = append(got, "500"+b.Invalid)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.sentence, got, tt.want)
		}
	}
	bad := httpRoute("bad", "echo", 80,
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/a")}}, Backends: []mesh.Backend{backend("echo-v3", 1, "gone")}},
		mesh.RouteRule{Backends: to("echo-v1", 80)})
	if got := leadsTo(compiled(t, service("echo"), 80, bad).Find(&Request{Path: "/a"})); got != "500" {
		t.Errorf("a matched rule with a bad backend leads to %s", got)
	}
}

func TestRoutesThatCannotBeRead(t *testing.T) {
	path := func(op mesh.PathOp, value string) mesh.RequestMatch {
		return mesh.RequestMatch{Path: mesh.PathMatch{Op: op, Value: value}}
	}
	for _, tt := range []struct {
		sentence string
		route    *mesh.Route
		want     string
	}{
		{"an expression", rival("bad", 1, path(mesh.PathRegex, "(")), "expression"},
		{"an expression that would be one in brackets", rival("bad", 1, path(mesh.PathRegex, "a)|(b")), "expression"},
		{"an exact path", rival("bad", 1, path(mesh.PathExact, "/a b")), "path"},
		{"a prefix", rival("bad", 1, path(mesh.PathPrefix, "a")), "path"},
		{"a header's expression", rival("bad", 1, mesh.RequestMatch{Headers: []mesh.ValueMatch{{Name: "x", Value: "[", Regex: true}}}), "expression"},
		{"a parameter's expression", rival("bad", 1, mesh.RequestMatch{Query: []mesh.ValueMatch{{Name: "x", Value: "[", Regex: true}}}), "expression"},
		{"a gRPC service", ofKind(mesh.RouteGRPC, rival("bad", 1, mesh.RequestMatch{Call: &mesh.CallMatch{Service: "a/b"}})), "slash"},
		{"a gRPC expression", ofKind(mesh.RouteGRPC, rival("bad", 1, mesh.RequestMatch{Call: &mesh.CallMatch{Method: "(", Regex: true}})), "expression"},
	} {
		good := ofKind(tt.route.Key.Kind, rival("good", 2, mesh.RequestMatch{Headers: []mesh.ValueMatch{{Name: "good", Value: "1"}}}))
		r, err := Compile(service("echo"), 80, []*mesh.Route{tt.route, good})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "/bad: rule 0: match 0:") {
			t.Errorf("%s: error %v", tt.sentence, err)
		}
		if got := r.Find(&Request{Path: "/a"}).Outcome; got != NotFound {
			t.Errorf("%s: what only it could match is %v", tt.sentence, got)
		}
		if got := r.Find(&Request{Path: "/a", Header: header("Good", "1")}).Outcome; got != Matched {
			t.Errorf("%s: another route is %v", tt.sentence, got)
		}
	}
}

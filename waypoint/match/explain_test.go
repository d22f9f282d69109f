package match

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

func TestExplanations(t *testing.T) {
	reviews := httpRoute("reviews", "echo", 80,
		mesh.RouteRule{Name: "canary", Matches: []mesh.RequestMatch{
			{Path: pathPrefix("/v2"), Method: "GET", Headers: []mesh.ValueMatch{{Name: "end-user", Value: "jason"}}},
			{Path: pathExact("/v3")},
		}},
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathRegex, Value: "/v[0-9]"}, Query: []mesh.ValueMatch{{Name: "beta", Value: "[0-9]+", Regex: true}}}}})
	every := httpRoute("every", "echo", 80, mesh.RouteRule{})
	bad := httpRoute("bad", "echo", 80, mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathRegex, Value: "("}}}})
	team := httpRoute("team", "echo", 80, mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/team")}}})
	team.Key.Namespace = "team"
	calls := httpRoute("calls", "echo", 80, mesh.RouteRule{Matches: []mesh.RequestMatch{
		{Call: &mesh.CallMatch{Service: "pkg.Svc", Method: "Get"}}, {Call: &mesh.CallMatch{Method: "G.*", Regex: true}},
	}})
	calls.Key.Kind = mesh.RouteGRPC
	tcp := httpRoute("tcp", "echo", 80, mesh.RouteRule{})
	tcp.Key.Kind = mesh.RouteTCP

	for _, tt := range []struct {
		sentence string
		routes   []*mesh.Route
		q        Request
		want     string
	}{
		{"no routes", nil, Request{Path: "/"}, `
			no route speaks for this client: the service itself answers`},
		{"every reason why an alternative does not match, in the order of precedence", []*mesh.Route{reviews, every}, Request{Method: "GET", Path: "/v2", Header: header("End-User", "secret")}, `
			the routes of the service's namespace gateway-conformance-mesh speak for this client
			HTTPRoute/gateway-conformance-mesh/reviews rule 0 (canary) match 1: path /v3 is another
			HTTPRoute/gateway-conformance-mesh/reviews rule 0 (canary) match 0: header End-User: jason has another value
			HTTPRoute/gateway-conformance-mesh/reviews rule 1 match 0: query parameter beta ~ [0-9]+ is missing
			HTTPRoute/gateway-conformance-mesh/every rule 0: matches every path`},
		{"a match, and nothing behind it", []*mesh.Route{reviews, every}, Request{Method: "GET", Path: "/v2/x", Header: header("End-User", "jason")}, `
			the routes of the service's namespace gateway-conformance-mesh speak for this client
			HTTPRoute/gateway-conformance-mesh/reviews rule 0 (canary) match 1: path /v3 is another
			HTTPRoute/gateway-conformance-mesh/reviews rule 0 (canary) match 0: matches path prefix /v2, method GET, header End-User: jason`},
		{"nothing found", []*mesh.Route{reviews}, Request{Method: "POST", Path: "/v2", Query: "beta=x"}, `
			the routes of the service's namespace gateway-conformance-mesh speak for this client
			HTTPRoute/gateway-conformance-mesh/reviews rule 0 (canary) match 1: path /v3 is another
			HTTPRoute/gateway-conformance-mesh/reviews rule 0 (canary) match 0: method GET is another
			HTTPRoute/gateway-conformance-mesh/reviews rule 1 match 0: query parameter beta ~ [0-9]+ has another value
			none of the routes matches`},
		{"a header that is missing", []*mesh.Route{reviews}, Request{Method: "GET", Path: "/v2/7"}, `
			the routes of the service's namespace gateway-conformance-mesh speak for this client
			HTTPRoute/gateway-conformance-mesh/reviews rule 0 (canary) match 1: path /v3 is another
			HTTPRoute/gateway-conformance-mesh/reviews rule 0 (canary) match 0: header End-User: jason is missing
			HTTPRoute/gateway-conformance-mesh/reviews rule 1 match 0: path ~ /v[0-9] is another
			none of the routes matches`},
		{"a consumer's routes", []*mesh.Route{every, team}, Request{Path: "/x", Client: clientOf("team")}, `
			the client's namespace team has routes of its own: only they speak for it
			HTTPRoute/team/team rule 0 match 0: path prefix /team is another
			none of the routes matches`},
		{"a client without an identity, where only consumers have routes", []*mesh.Route{team}, Request{Path: "/team", Client: spiffe.ID{}}, `
			no route speaks for this client: the service itself answers`},
		{"a route that cannot be used", []*mesh.Route{bad}, Request{Path: "/"}, `
			the routes of the service's namespace gateway-conformance-mesh speak for this client
			HTTPRoute/gateway-conformance-mesh/bad: matches nothing: it cannot be used as it is written
			none of the routes matches`},
		{"a weaker kind", []*mesh.Route{every, calls}, Request{Path: "/pkg.Svc/Get"}, `
			the routes of the service's namespace gateway-conformance-mesh speak for this client
			HTTPRoute/gateway-conformance-mesh/every: not asked: a GRPCRoute is attached to this port too
			GRPCRoute/gateway-conformance-mesh/calls rule 0 match 0: matches call pkg.Svc/Get`},
		{"a gRPC method by expression", []*mesh.Route{calls}, Request{Path: "/other.Svc/Go"}, `
			the routes of the service's namespace gateway-conformance-mesh speak for this client
			GRPCRoute/gateway-conformance-mesh/calls rule 0 match 0: call pkg.Svc/Get is another
			GRPCRoute/gateway-conformance-mesh/calls rule 0 match 1: matches call ~ */G.*`},
		{"routes of connections", []*mesh.Route{tcp}, Request{Path: "/"}, `
			the routes of the service's namespace gateway-conformance-mesh speak for this client
			no TCPRoute is about requests: the service itself answers`},
		{"a path without a form", []*mesh.Route{every}, Request{Path: "/%"}, `
			the routes of the service's namespace gateway-conformance-mesh speak for this client
			the path has no normal form: path has a % without two hexadecimal digits`},
	} {
		r, _ := Compile(service("echo"), 80, tt.routes)
		var got strings.Builder
		for _, s := range r.Explain(&tt.q) {
			got.WriteString("\n\t\t\t" + s.String())
		}
		if diff := cmp.Diff(tt.want, got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, diff)
		}
	}
}

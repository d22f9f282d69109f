package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// grpcHeaders asks what the suite asks from v1.7 on, which cannot be compiled
// with the Go release we use: changes of headers on the way of a gRPC call.
func grpcHeaders() suite.ConformanceTest {
	call := func(it, backend string, sent, arrives map[string]string, absent ...string) exchange {
		return exchange{it: it, protocol: "grpc", host: "echo:7070", headers: sent, arrives: arrives, absent: absent, backend: backend}
	}
	type h = map[string]string
	return caseOf("GRPCRouteRequestHeaderModifier", "A GRPCRoute changes the headers of a call", "grpc-headers.yaml", exchanges(
		call("a header is set where there was none", "echo-v1", h{"x-case": "set"}, h{"x-header-set": "overwritten"}),
		call("a header is set over another value", "echo-v1", h{"x-case": "set", "x-header-set": "old"}, h{"x-header-set": "overwritten"}),
		call("a header is added where there was none", "echo-v1", h{"x-case": "add"}, h{"x-header-add": "appended"}),
		call("a value is added to a header", "echo-v1", h{"x-case": "add", "x-header-add": "first"}, h{"x-header-add": "first,appended"}),
		call("a header is removed, and others stay", "echo-v1", h{"x-case": "remove", "x-header-remove": "gone", "x-other": "stays"}, h{"x-other": "stays"}, "x-header-remove"),
		call("several changes at once, at another backend", "echo-v2", h{"x-case": "several", "x-header-set": "old", "x-header-add": "first", "x-header-remove": "gone"},
			h{"x-header-set": "overwritten", "x-header-add": "first,appended"}, "x-header-remove"),
	))
}

func redirects() suite.ConformanceTest {
	to := func(it, path string, status int, location string) exchange {
		return exchange{it: it, path: path, status: status, location: location}
	}
	return caseOf("HTTPRouteRedirectLocation", "Where a redirect leads", "redirect.yaml", exchanges(
		to("another host; scheme, path and query stay", "/host/a?b=c", 302, "http://example.org/host/a?b=c"),
		to("another scheme, whose port goes without saying", "/scheme/a", 301, "https://example.org/scheme/a"),
		to("another port", "/port", 302, "http://example.org:8083/port"),
		to("the port that goes without saying", "/well-known", 302, "http://example.org/well-known"),
		to("another path; the query stays", "/full/a?b=c", 302, "http://example.org/elsewhere?b=c"),
		to("another prefix", "/prefix/a/b", 302, "http://example.org/new/a/b"),
		to("another prefix that is the whole path", "/prefix", 302, "http://example.org/new"),
		to("another prefix in front of a slash", "/prefix/", 302, "http://example.org/new/"),
		to("no prefix gives no double slash", "/strip/a", 302, "http://example.org/a"),
		to("no prefix of nothing else is the root", "/strip", 302, "http://example.org/"),
	))
}

func rewrites() suite.ConformanceTest {
	arrives := func(it, path, backend, url, sees string) exchange {
		return exchange{it: it, path: path, backend: backend, url: url, sees: sees}
	}
	return caseOf("HTTPRouteRewriteArrives", "What a rewritten request looks like to its backend", "rewrite.yaml", exchanges(
		arrives("another prefix; the rest, the query and the host stay", "/prefix/a?b=c", "echo-v1", "/new/a?b=c", "echo"),
		arrives("another prefix that is the whole path", "/prefix", "echo-v1", "/new", "echo"),
		arrives("no prefix", "/strip/a", "echo-v1", "/a", "echo"),
		arrives("no prefix of nothing else is the root", "/strip", "echo-v1", "/", "echo"),
		arrives("another path and another host", "/full/a?b=c", "echo-v2", "/elsewhere?b=c", "one.example.org"),
	))
}

func methods() suite.ConformanceTest {
	return caseOf("HTTPRouteMethods", "Methods choose, and what nothing matches is not found", "methods.yaml", exchanges(
		exchange{it: "by method alone", method: "POST", path: "/any", backend: "echo-v1"},
		exchange{it: "by method and path", path: "/read/a", backend: "echo-v2"},
		exchange{it: "the path outranks the method", method: "POST", path: "/read/a", backend: "echo-v1"},
		exchange{it: "another path", path: "/any", status: 404},
		exchange{it: "another method", method: "DELETE", path: "/read", status: 404},
	))
}

func backends() suite.ConformanceTest {
	held := exchanges(
		exchange{it: "a backend that does not exist", path: "/missing", status: 500},
		exchange{it: "its weight is zero", path: "/unused", backend: "echo-v1"},
		exchange{it: "no backend at all", path: "/none", status: 500},
		exchange{it: "a backend without endpoints", path: "/nobody", status: 503},
		exchange{it: "another rule", path: "/", backend: "echo-v1"},
	)
	return caseOf("HTTPRouteBackends", "Backends that cannot be used answer for their share", "backends.yaml", func(t *testing.T, s *suite.ConformanceTestSuite) {
		held(t, s)
		t.Run("half of the requests", func(t *testing.T) {
			got := shares(t, echo.ConnectToApp(t, s, echo.MeshAppEchoV1), exchange{path: "/half"}, 400)
			about(t, "answered 500", got["500"], 200, 400)
			about(t, "answered 200", got["200"], 200, 400)
		})
	})
}

func timeouts() suite.ConformanceTest {
	return caseOf("HTTPRouteTimeouts", "Who is slower than allowed is not waited for", "timeouts.yaml", exchanges(
		exchange{it: "the whole request is in time", path: "/request", backend: "echo-v1"},
		exchange{it: "the whole request is not", path: "/request?delay=2s", status: 504},
		exchange{it: "the backend is in time", path: "/backend", backend: "echo-v1"},
		exchange{it: "the backend is not", path: "/backend?delay=2s", status: 504},
		exchange{it: "zero is no limit", path: "/never?delay=2s", backend: "echo-v1"},
	))
}

func cors() suite.ConformanceTest {
	preflight := map[string]string{"Origin": "https://shop.example", "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-token"}
	return caseOf("HTTPRouteCORS", "Browsers of other origins", "cors.yaml", exchanges(
		exchange{it: "a request of an allowed origin", path: "/cors", headers: map[string]string{"Origin": "https://shop.example"}, backend: "echo-v1", gets: map[string]string{
			"Access-Control-Allow-Origin": "https://shop.example", "Access-Control-Allow-Credentials": "true", "Access-Control-Expose-Headers": "x-seen",
		}},
		exchange{it: "a request of another one", path: "/cors", headers: map[string]string{"Origin": "https://other.example"}, lacks: []string{"Access-Control-Allow-Origin"}},
		exchange{it: "a question before an allowed request", method: "OPTIONS", path: "/cors", headers: preflight, status: 204, gets: map[string]string{
			"Access-Control-Allow-Origin": "https://shop.example", "Access-Control-Allow-Credentials": "true", "Access-Control-Max-Age": "60",
		}},
	))
}

func merged() suite.ConformanceTest {
	return caseOf("HTTPRouteMerge", "Two routes of one Service are one list of rules", "merge.yaml", exchanges(
		exchange{it: "the longer prefix, of the second route", path: "/deep/a", backend: "echo-v2"},
		exchange{it: "the exact path, of the first route", path: "/deep/exact", backend: "echo-v1"},
		exchange{it: "of two equal rules that of the first route by age and name", path: "/a", backend: "echo-v1"},
	))
}

func producersAndConsumers() suite.ConformanceTest {
	type h = map[string]string
	return caseOf("ProducerAndConsumerRoutes", "Whose route counts for which client", "consumer.yaml", func(t *testing.T, s *suite.ConformanceTestSuite) {
		producer := echo.ConnectToApp(t, s, echo.MeshAppEchoV1)
		consumer := echo.ConnectToAppInNamespace(t, s, echo.MeshAppEchoV1, suite.MeshConsumerNamespace)
		t.Run("clients of the Service's namespace take the producer's", func(t *testing.T) {
			exchange{host: "echo", path: "/", backend: "echo-v1", gets: h{"X-Route": "producer"}}.holds(t, producer, s)
		})
		const host = "echo.gateway-conformance-mesh"
		t.Run("clients of the other namespace take the consumer's", func(t *testing.T) {
			exchange{host: host, path: "/", backend: "echo-v2", gets: h{"X-Route": "consumer"}}.holds(t, consumer, s)
		})
		t.Run("and no rule of the producer's, even a better one", func(t *testing.T) {
			exchange{host: host, path: "/special", backend: "echo-v2", gets: h{"X-Route": "consumer"}}.holds(t, consumer, s)
		})
	})
}

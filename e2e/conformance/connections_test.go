package conformance

import (
	"testing"
	"time"

	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

func tcpRoutes() suite.ConformanceTest {
	return caseOf("TCPRoute", "Connections that are no HTTP", "tcp.yaml", exchanges(
		exchange{it: "the backend with all the weight", protocol: "tcp", host: "echo:9090", backend: "echo-v2"},
	))
}

func tlsRoutes() suite.ConformanceTest {
	held := exchanges(exchange{it: "the name of the route", protocol: "https", host: "echo.gateway-conformance-mesh", path: "/", backend: "echo-v2"})
	return caseOf("TLSRoute", "TLS connections by the name that is asked for", "tls.yaml", func(t *testing.T, s *suite.ConformanceTestSuite) {
		held(t, s)
		t.Run("another name leads nowhere", func(t *testing.T) {
			refused(t, s, exchange{protocol: "https", host: "echo", path: "/"})
		})
	})
}

func grpcMethods() suite.ConformanceTest {
	type h = map[string]string
	held := exchanges(
		exchange{it: "by service", protocol: "grpc", host: "echo:7070", backend: "echo-v1"},
		exchange{it: "by service, method and header", protocol: "grpc", host: "echo:7070", headers: h{"x-case": "second"}, backend: "echo-v2"},
	)
	return caseOf("GRPCRouteMethods", "Calls by service and method", "grpc-methods.yaml", func(t *testing.T, s *suite.ConformanceTestSuite) {
		held(t, s)
		t.Run("what nothing matches fails", func(t *testing.T) {
			refused(t, s, exchange{protocol: "grpc", host: "echo-v2:7070"})
		})
	})
}

// refused waits until an exchange gets no reply at all, as often as the suite
// wants to see anything.
func refused(t *testing.T, s *suite.ConformanceTestSuite, e exchange) {
	t.Helper()
	client := echo.ConnectToApp(t, s, echo.MeshAppEchoV1)
	http.AwaitConvergence(t, s.TimeoutConfig.RequiredConsecutiveSuccesses, s.TimeoutConfig.MaxTimeToConsistency, func(time.Duration) bool {
		// A batch is an error only if the program in the pod says so.
		_, err := client.RequestBatch(t, e.expect(), 1)
		if err == nil {
			t.Log("not yet: there was a reply")
		}
		return err != nil
	})
}

package conformance

import (
	"embed"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

//go:embed beyond
var beyondManifests embed.FS

// beyond are cases of our own in the suite's style.
var beyond = []suite.ConformanceTest{grpcHeaders}

// TestBeyond runs them. It is a run of its own, because the suite would count
// them in a report that must be the unmodified suite's.
func TestBeyond(t *testing.T) {
	opts := conformance.DefaultOptions(t)
	opts.ManifestFS = append(opts.ManifestFS, beyondManifests)
	opts.ReportOutputPath = ""
	run(t, opts, chosen(t, beyond))
}

// grpcHeaders asks what the suite asks from v1.7 on, which cannot be compiled
// with the Go release we use: changes of headers on the way of a gRPC call.
var grpcHeaders = suite.ConformanceTest{
	ShortName:   "BeyondGRPCRouteRequestHeaderModifier",
	Description: "A GRPCRoute changes the headers of a request in the mesh",
	Manifests:   []string{"beyond/grpcroute-request-header-modifier.yaml"},
	Features:    []features.FeatureName{features.SupportMesh, features.SupportGRPCRoute},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := echo.ConnectToApp(t, s, echo.MeshAppEchoV1)
		for name, tt := range map[string]struct {
			sent, arrives map[string]string
			absent        []string
			backend       string
		}{
			"a header is set where there was none": {
				map[string]string{"x-case": "set"}, map[string]string{"x-header-set": "overwritten"}, nil, "echo-v1",
			},
			"a header is set over another value": {
				map[string]string{"x-case": "set", "x-header-set": "old"}, map[string]string{"x-header-set": "overwritten"}, nil, "echo-v1",
			},
			"a header is added where there was none": {
				map[string]string{"x-case": "add"}, map[string]string{"x-header-add": "appended"}, nil, "echo-v1",
			},
			"a value is added to a header": {
				map[string]string{"x-case": "add", "x-header-add": "first"}, map[string]string{"x-header-add": "first,appended"}, nil, "echo-v1",
			},
			"a header is removed, and others stay": {
				map[string]string{"x-case": "remove", "x-header-remove": "gone", "x-other": "stays"}, map[string]string{"x-other": "stays"}, []string{"x-header-remove"}, "echo-v1",
			},
			"several changes at once, at another backend": {
				map[string]string{"x-case": "several", "x-header-set": "old", "x-header-add": "first", "x-header-remove": "gone"},
				map[string]string{"x-header-set": "overwritten", "x-header-add": "first,appended"}, []string{"x-header-remove"}, "echo-v2",
			},
		} {
			t.Run(name, func(t *testing.T) {
				client.MakeRequestAndExpectEventuallyConsistentResponse(t, http.ExpectedResponse{
					Request:         http.Request{Protocol: "grpc", Host: "echo:7070", Headers: tt.sent},
					ExpectedRequest: &http.ExpectedRequest{Request: http.Request{Headers: tt.arrives}, AbsentHeaders: tt.absent},
					Response:        http.Response{StatusCode: 200},
					Backend:         tt.backend,
					Namespace:       suite.MeshNamespace,
				}, s.TimeoutConfig)
			})
		}
	},
}

package conformance

import (
	"embed"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

//go:embed beyond
var beyondManifests embed.FS

// beyond are cases of our own in the suite's style, about what its tests of a
// mesh do not look at; e2e/trial names them too.
func beyond() []suite.ConformanceTest {
	return []suite.ConformanceTest{
		grpcHeaders(), grpcMethods(), redirects(), rewrites(), methods(), backends(), timeouts(), mirrors(), cors(), merged(),
		producersAndConsumers(), conflicts(), statuses(), changes(), tcpRoutes(), tlsRoutes(),
		retries(), budgets(), sessions(), // of the experimental channel
	}
}

// TestBeyond runs them. It is a run of its own, because the suite would count
// them in a report that must be the unmodified suite's.
func TestBeyond(t *testing.T) {
	opts := conformance.DefaultOptions(t)
	opts.ManifestFS = append(opts.ManifestFS, beyondManifests)
	opts.ReportOutputPath = ""
	run(t, opts, chosen(t, beyond()))
}

// caseOf is one case: a name, what it is about, the file of its objects, and
// what must come of it.
func caseOf(name, about, manifest string, test func(*testing.T, *suite.ConformanceTestSuite)) suite.ConformanceTest {
	return suite.ConformanceTest{
		ShortName: "Beyond" + name, Description: about, Manifests: []string{"beyond/" + manifest},
		Features: []features.FeatureName{features.SupportMesh, features.SupportHTTPRoute, features.SupportGRPCRoute},
		Test:     test,
	}
}

package conformance

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/yaml"
)

// Flags beside those of the suite.
var (
	explicit = flag.Bool("explicit-waypoint", false, "between the suite's set-up and its tests, make a waypoint and name it on the namespace")
	only     = flag.String("only", "", "comma-separated tests to run (default: all)")
)

// TestConformance is the suite. Without flags of ours it is the suite's own
// entry, to the letter.
func TestConformance(t *testing.T) {
	if !*explicit && *only == "" {
		conformance.RunConformance(t)
		return
	}
	run(t, conformance.DefaultOptions(t), chosen(t, tests.ConformanceTests))
}

// chosen are the tests that -only names.
func chosen(t *testing.T, all []suite.ConformanceTest) []suite.ConformanceTest {
	if *only == "" {
		return all
	}
	var some []suite.ConformanceTest
	for name := range strings.SplitSeq(*only, ",") {
		i := slices.IndexFunc(all, func(c suite.ConformanceTest) bool { return c.ShortName == name })
		if i < 0 {
			t.Fatalf("the suite has no test %q", name)
		}
		some = append(some, all[i])
	}
	return some
}

// run is the suite's entry, with a waypoint in between if that is asked for.
func run(t *testing.T, opts suite.ConformanceOptions, list []suite.ConformanceTest) {
	s, err := suite.NewConformanceTestSuite(opts)
	if err != nil {
		t.Fatal("making the suite: ", err)
	}
	// The report is ready once the suite's own clean-up is over, which is the
	// first that was registered: so last, by being registered before.
	t.Cleanup(func() { report(t, s, opts.ReportOutputPath) })
	s.Setup(t, list)
	if *explicit {
		putWaypoint(t, s.Client)
	}
	if err := s.Run(t, list); err != nil {
		t.Fatal("running the suite: ", err)
	}
}

func report(t *testing.T, s *suite.ConformanceTestSuite, file string) {
	if file == "" {
		return
	}
	r, err := s.Report()
	if err != nil {
		t.Fatal("asking for the report: ", err)
	}
	raw, err := yaml.Marshal(r)
	if err != nil {
		t.Fatal("writing the report: ", err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal("writing the report: ", err)
	}
	t.Logf("report:\n%s", raw)
}

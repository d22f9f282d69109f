package trial

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// green is the output of a run in which everything passed.
func green() string {
	var b strings.Builder
	b.WriteString("=== RUN   TestConformance\n    suite.go:1: Test Setup\n")
	for _, c := range Claims() {
		fmt.Fprintf(&b, "=== RUN   TestConformance/%s\n=== RUN   TestConformance/%s/0_request\n", c.Test, c.Test)
	}
	b.WriteString("--- PASS: TestConformance (60.00s)\n    --- SKIP: TestConformance/GatewayClassObservedGeneration (0.00s)\n")
	for _, c := range Claims() {
		fmt.Fprintf(&b, "    --- PASS: TestConformance/%s (1.50s)\n        --- PASS: TestConformance/%s/0_request to 'x' (should pass) (2.10s)\n", c.Test, c.Test)
	}
	return b.String() + "PASS\n"
}

const goodReport = `gatewayAPIChannel: standard
gatewayAPIVersion: v1.6.3
profiles:
- name: MESH-GRPC
  core: {result: success, statistics: {Passed: 2, Failed: 0, Skipped: 0}}
- name: MESH-HTTP
  core: {result: success, statistics: {Passed: 7, Failed: 0, Skipped: 0}}
  extended:
    result: success
    statistics: {Passed: 7, Failed: 0, Skipped: 0}
    supportedFeatures: [a, b]
`

// judged is the results of a run with an output and a report.
func judged(t *testing.T, cfg Config, output, report string, exit0 bool) *Results {
	t.Helper()
	cfg.Progress = io.Discard
	r := newResults(cfg)
	// In pieces, as a pipe brings it.
	for b := range slices.Chunk([]byte(output), 7) {
		if _, err := r.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	r.end(exit0)
	file := filepath.Join(t.TempDir(), "report.yaml")
	if report != "" {
		if err := os.WriteFile(file, []byte(report), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if cfg.reports() {
		if err := r.read(file); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestWhatCountsAsPassed(t *testing.T) {
	standard := Config{Mode: Modes()[0]}
	without := func(text, line string) string { return strings.ReplaceAll(text, line, "") }
	for _, tt := range []struct {
		it     string
		cfg    Config
		output string
		report string
		exit0  bool
		says   []string
	}{
		{it: "all passed and reported", cfg: standard, output: green(), report: goodReport, exit0: true},
		{it: "a test failed", cfg: standard, output: strings.Replace(green(), "PASS: TestConformance/MeshPorts ", "FAIL: TestConformance/MeshPorts ", 1), report: goodReport, says: []string{"MeshPorts: FAIL"}},
		{it: "a test was skipped", cfg: standard, output: strings.Replace(green(), "PASS: TestConformance/MeshPorts ", "SKIP: TestConformance/MeshPorts ", 1), report: goodReport, exit0: true, says: []string{"MeshPorts: SKIP"}},
		{it: "a test did not run", cfg: standard, output: without(green(), "    --- PASS: TestConformance/MeshBasic (1.50s)\n"), report: goodReport, exit0: true, says: []string{"MeshBasic: MISSING"}},
		{it: "the suite failed in between", cfg: standard, output: green(), report: goodReport, says: []string{"the suite ended with an error: see its log"}},
		{it: "a profile is not reported", cfg: standard, output: green(), report: without(goodReport, "- name: MESH-GRPC\n  core: {result: success, statistics: {Passed: 2, Failed: 0, Skipped: 0}}\n"), exit0: true, says: []string{"the report lacks profile MESH-GRPC"}},
		{it: "a feature is not supported", cfg: standard, output: green(), report: goodReport + "    unsupportedFeatures: [c]\n", exit0: true, says: []string{"the report says success of what is beyond the core of MESH-HTTP, without [c]"}},
		{it: "a core is partial", cfg: standard, output: green(), report: strings.Replace(goodReport, "success", "partial", 1), exit0: true, says: []string{"the report says partial of the core of MESH-GRPC"}},
		{it: "the cluster has another channel", cfg: Config{Mode: Modes()[2]}, output: green(), report: goodReport, exit0: true, says: []string{`the report names channel "standard"`}},
		{it: "one test was asked for, and no report", cfg: Config{Mode: Modes()[0], Only: []string{"MeshBasic"}}, output: green(), exit0: true},
		{it: "one test was asked for and is not there", cfg: Config{Mode: Modes()[0], Only: []string{"MeshNothing"}}, output: green(), exit0: true, says: []string{"MeshNothing: MISSING"}},
		{it: "our own case passed", cfg: Config{Mode: Modes()[0], Beyond: true, Only: []string{"BeyondGRPCRouteRequestHeaderModifier"}}, output: "    --- PASS: TestBeyond/BeyondGRPCRouteRequestHeaderModifier (1.00s)\n", exit0: true},
	} {
		got := judged(t, tt.cfg, tt.output, tt.report, tt.exit0).Failed()
		if diff := cmp.Diff(tt.says, got); diff != "" {
			t.Errorf("%s (-want +said): %s", tt.it, diff)
		}
	}
}

func TestARunThatBrokeOffHasNoReportAndIsNoSuccess(t *testing.T) {
	got := judged(t, Config{Mode: Modes()[0]}, "=== RUN   TestConformance\npanic: x\n", "", false).Failed()
	if len(got) < len(Claims()) || got[0] != "MeshBasic: MISSING" {
		t.Errorf("it says %v", got)
	}
}

func TestTheTableSaysWhatIsCountedWhere(t *testing.T) {
	got := judged(t, Config{Mode: Modes()[0]}, green(), goodReport, true).Table()
	for _, want := range []string{
		"  PASS    MeshBasic                                       2.10s  counted in both, core\n",
		"  PASS    MeshConsumerRoute                               2.10s  counted nowhere\n",
		"  MESH-HTTP: core success (7 passed, 0 failed, 0 skipped), extended success (7 passed, 0 failed, 0 skipped; 2 of 2 features)\n",
		"  MESH-GRPC: core success (2 passed, 0 failed, 0 skipped)\n",
		"  Gateway API v1.6.3, standard channel\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, got)
		}
	}
}

func TestTheClaimsAreTheSuites(t *testing.T) {
	counted := map[string]int{}
	for _, c := range Claims() {
		counted[c.Counted]++
	}
	want := map[string]int{"in both, core": 1, "in MESH-HTTP core": 6, "in MESH-HTTP extended": 7, "in MESH-GRPC core": 1, "nowhere": 7}
	if diff := cmp.Diff(want, counted); diff != "" {
		t.Error(diff)
	}
	mesh := slices.DeleteFunc(slices.Clone(features), func(f string) bool { return !strings.HasPrefix(f, "Mesh") })
	if len(mesh) != 9 {
		t.Errorf("%d extended features of a mesh are claimed, there are nine", len(mesh))
	}
}

func TestOnlyTheInferredModeLeavesTheFeaturesToTheStatus(t *testing.T) {
	for _, m := range Modes() {
		args := strings.Join(m.args("v1"), " ")
		if inferred := !strings.Contains(args, "-supported-features"); inferred != m.Inferred || inferred != strings.Contains(args, "-mesh-name=ambit") {
			t.Errorf("%s: %s", m.Name, args)
		}
		if explicit := strings.Contains(args, "-explicit-waypoint"); explicit != m.Explicit || explicit == strings.Contains(args, "use-waypoint=auto") {
			t.Errorf("%s: %s", m.Name, args)
		}
	}
}

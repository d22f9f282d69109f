package trial

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Outcome of a test.
type Outcome string

const (
	Passed  Outcome = "PASS"
	Failed  Outcome = "FAIL"
	Skipped Outcome = "SKIP"
	// Missing is a test that was to run and did not.
	Missing Outcome = "MISSING"
)

// Results is what a run said.
type Results struct {
	cfg      Config
	outcomes map[string]Outcome
	took     map[string]float64 // seconds
	line     []byte
	ended    bool
	green    bool
	profiles []profile
	version  string
	channel  string
}

func newResults(cfg Config) *Results {
	return &Results{cfg: cfg, outcomes: map[string]Outcome{}, took: map[string]float64{}}
}

// ends matches the line that go test prints when a test of ours or the suite's
// ends; those of its parts are indented further.
var ends = regexp.MustCompile(`^    --- (PASS|FAIL|SKIP): Test\w+/(\w+) \(([\d.]+)s\)$`)

// partEnds matches that of a part, which goes on after its parallel parent's.
var partEnds = regexp.MustCompile(`^        --- (?:PASS|FAIL|SKIP): Test\w+/(\w+)/.* \(([\d.]+)s\)$`)

// begins matches the line that it prints when one starts.
var begins = regexp.MustCompile(`^=== RUN   Test\w+/(\w+)$`)

// Write takes the program's output, and makes Results an io.Writer.
func (r *Results) Write(b []byte) (int, error) {
	r.line = append(r.line, b...)
	for {
		i := bytes.IndexByte(r.line, '\n')
		if i < 0 {
			return len(b), nil
		}
		r.readLine(string(r.line[:i]))
		r.line = r.line[i+1:]
	}
}

func (r *Results) readLine(line string) {
	if m := ends.FindStringSubmatch(line); m != nil {
		r.outcomes[m[2]] = Outcome(m[1])
		r.lasted(m[2], m[3])
	}
	if m := partEnds.FindStringSubmatch(line); m != nil {
		r.lasted(m[1], m[2])
	}
	if m := begins.FindStringSubmatch(line); m != nil && r.expected(m[1]) {
		fmt.Fprintf(r.cfg.Progress, "          · %s\n", m[1])
	}
}

// lasted notes a time of a test; the longest counts.
func (r *Results) lasted(test, seconds string) {
	if s, err := strconv.ParseFloat(seconds, 64); err == nil {
		r.took[test] = max(r.took[test], s)
	}
}

// end says how the program ended.
func (r *Results) end(green bool) { r.ended, r.green = true, green }

// expected says whether a test is one that we claim.
func (r *Results) expected(test string) bool { return slices.Contains(r.wanted(), test) }

// wanted are the tests that had to run and pass.
func (r *Results) wanted() []string {
	if len(r.cfg.Only) > 0 {
		return r.cfg.Only
	}
	var all []string
	for _, c := range Claims() {
		all = append(all, c.Test)
	}
	return all
}

// outcome of a test that had to pass.
func (r *Results) outcome(test string) Outcome { return cmp.Or(r.outcomes[test], Missing) }

// Failed says in words what is not as claimed; empty is success.
func (r *Results) Failed() []string {
	var out []string
	for _, test := range r.wanted() {
		if o := r.outcome(test); o != Passed {
			out = append(out, fmt.Sprintf("%s: %s", test, o))
		}
	}
	if !r.green && len(out) == 0 {
		out = append(out, "the suite ended with an error: see its log")
	}
	if r.cfg.reports() && r.ended {
		out = append(out, r.unreported()...)
	}
	return out
}

// profile is one entry of a report.
type profile struct {
	Name     string
	Core     part
	Extended *part
}

type part struct {
	Result     string
	Statistics struct{ Passed, Failed, Skipped int }
	Supported  []string `json:"supportedFeatures"`
	Missing    []string `json:"unsupportedFeatures"`
}

// read reads the report.
func (r *Results) read(file string) error {
	b, err := os.ReadFile(file)
	if os.IsNotExist(err) && !r.green {
		return nil // it broke off before; Failed says so
	}
	if err != nil {
		return fmt.Errorf("reading the report: %w", err)
	}
	var report struct {
		Profiles          []profile
		GatewayAPIVersion string
		GatewayAPIChannel string
	}
	if err := yaml.Unmarshal(b, &report); err != nil {
		return fmt.Errorf("reading the report: %w", err)
	}
	slices.SortFunc(report.Profiles, func(a, b profile) int { return cmp.Compare(b.Name, a.Name) })
	r.profiles, r.version, r.channel = report.Profiles, report.GatewayAPIVersion, report.GatewayAPIChannel
	return nil
}

// unreported says what the report does not say although we claim it.
func (r *Results) unreported() []string {
	var out []string
	for _, want := range profiles {
		i := slices.IndexFunc(r.profiles, func(p profile) bool { return p.Name == want })
		if i < 0 {
			out = append(out, "the report lacks profile "+want)
			continue
		}
		p := r.profiles[i]
		if p.Core.Result != "success" {
			out = append(out, fmt.Sprintf("the report says %s of the core of %s", p.Core.Result, want))
		}
		if p.Extended != nil && (p.Extended.Result != "success" || len(p.Extended.Missing) > 0) {
			out = append(out, fmt.Sprintf("the report says %s of what is beyond the core of %s, without %v", p.Extended.Result, want, p.Extended.Missing))
		}
	}
	if r.channel != r.cfg.Mode.GatewayAPI {
		out = append(out, fmt.Sprintf("the report names channel %q", r.channel))
	}
	return out
}

// Table is the results for people.
func (r *Results) Table() string {
	counted := map[string]string{}
	for _, c := range Claims() {
		counted[c.Test] = "counted " + c.Counted
	}
	var b strings.Builder
	for _, test := range r.wanted() {
		fmt.Fprintf(&b, "%s\n", strings.TrimRight(fmt.Sprintf("  %-7s %-44s %7.2fs  %s", r.outcome(test), test, r.took[test], counted[test]), " "))
	}
	for _, p := range r.profiles {
		fmt.Fprintf(&b, "  %s: core %s (%d passed, %d failed, %d skipped)", p.Name, p.Core.Result,
			p.Core.Statistics.Passed, p.Core.Statistics.Failed, p.Core.Statistics.Skipped)
		if e := p.Extended; e != nil {
			fmt.Fprintf(&b, ", extended %s (%d passed, %d failed, %d skipped; %d of %d features)", e.Result,
				e.Statistics.Passed, e.Statistics.Failed, e.Statistics.Skipped, len(e.Supported), len(e.Supported)+len(e.Missing))
		}
		b.WriteString("\n")
	}
	if r.version != "" {
		fmt.Fprintf(&b, "  Gateway API %s, %s channel\n", r.version, r.channel)
	}
	return b.String()
}

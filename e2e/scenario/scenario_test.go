package scenario

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/tools/txtar"

	"net/netip"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

var update = flag.Bool("update", false, "rewrite the golden parts of the scenarios")

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d scenarios: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runFile(t, file) })
	}
}

func runFile(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	a := txtar.Parse(data)
	if len(bytes.TrimSpace(a.Comment)) == 0 {
		t.Error("the scenario does not say what it promises")
	}
	c := newChain()
	for _, s := range stepsOf(a) {
		runStep(t, c, s)
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func runStep(t *testing.T, c *chain, s *step) {
	before := fatesOf(t, c.store.View(), s)
	model, conditions, updates, err := c.change(s)
	if err != nil {
		t.Fatalf("step %q: %v", s.name, err)
	}
	checkFull(t, c, model, conditions)
	between := []map[string]bool{}
	for _, u := range updates {
		if err := c.receive(u); err != nil {
			t.Fatalf("step %q: %v", s.name, err)
		}
		between = append(between, fatesOf(t, c.store.View(), s))
	}
	after := fatesOf(t, c.store.View(), s)
	checkBetween(t, s, before, between, after)
	if s.files["lost.txt"] == nil {
		checkFresh(t, c.store.View(), model)
	}
	golden(t, s, "conditions.txt", func(string) (string, error) { return conditionLines(conditions), nil })
	golden(t, s, "virtual.txt", func(string) (string, error) { return virtualLines(c.translator.Details()), nil })
	golden(t, s, "names.txt", func(text string) (string, error) { return namesFile(c.store.View(), text) })
	golden(t, s, "decide.txt", func(text string) (string, error) { return decideFile(c.store.View(), text) })
	golden(t, s, "requests.txt", func(text string) (string, error) { return c.waypoints.requestFile(c.store.View(), text) })
}

// checkBetween: what passes neither before nor after a step never passes.
func checkBetween(t *testing.T, s *step, before map[string]bool, between []map[string]bool, after map[string]bool) {
	for _, state := range between {
		for connection, open := range state {
			if open && !before[connection] && !after[connection] {
				t.Errorf("step %q: %q passes between the responses, though neither before nor after", s.name, connection)
			}
		}
	}
}

// golden compares a file of the step with what comes out, or rewrites it.
func golden(t *testing.T, s *step, name string, make func(string) (string, error)) {
	f := s.files[name]
	if f == nil {
		return
	}
	// Continuation lines are of the answer before.
	var asked strings.Builder
	for line := range strings.Lines(string(f.Data)) {
		if !strings.HasPrefix(line, "\t|") {
			asked.WriteString(line)
		}
	}
	got, err := make(asked.String())
	if err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	if *update {
		f.Data = []byte(got)
	}
	if d := cmp.Diff(string(f.Data), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", f.Name, d)
	}
}

// fatesOf tells, of each connection of a step whose source is known, whether
// it could reach the application.
func fatesOf(t *testing.T, v *view.View, s *step) map[string]bool {
	out := map[string]bool{}
	f := s.files["decide.txt"]
	if f == nil {
		return out
	}
	for line := range strings.Lines(string(f.Data)) {
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "\t") {
			continue
		}
		text, _, _ := strings.Cut(line, "->")
		c, err := parseConnection(text)
		if err != nil {
			t.Fatal(err)
		}
		fates, err := decide(v, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fates {
			out[c.text+" -> "+endpoint(f.text)] = out[c.text+" -> "+endpoint(f.text)] || f.open
		}
	}
	return out
}

// endpoint is a fate without the verdict and the identities of its peer, which
// may have more names in one state than in another.
func endpoint(fate string) string {
	before, _, _ := strings.Cut(fate, ": ")
	before, _, _ = strings.Cut(before, " as ")
	return before
}

// checkFull: translating change by change gives what translating all gives.
func checkFull(t *testing.T, c *chain, model mesh.Model, conditions []translate.Condition) {
	full, fullConditions := translate.Translate(c.set)
	if d := cmp.Diff(full, model, same...); d != "" {
		t.Errorf("the changes lead to another model than the whole (-whole +changes):\n%s", d)
	}
	if d := cmp.Diff(fullConditions, conditions, same...); d != "" {
		t.Errorf("the changes lead to other conditions than the whole (-whole +changes):\n%s", d)
	}
}

// checkFresh: what a proxy holds after its updates is the model.
func checkFresh(t *testing.T, v *view.View, model mesh.Model) {
	model = ofZtunnels(model)
	if d := cmp.Diff(model, held(v), same...); d != "" {
		t.Errorf("the proxy holds something else than the model (-model +proxy):\n%s", d)
	}
}

// ofZtunnels is a model without what only waypoints hold.
func ofZtunnels(m mesh.Model) mesh.Model {
	m.Routes, m.Traffic, m.Authentications = nil, nil, nil
	m.Policies = maps.Clone(m.Policies)
	maps.DeleteFunc(m.Policies, func(_ mesh.PolicyKey, p *mesh.Policy) bool { return p.Scope == mesh.ScopeTargets })
	return m
}

// held is everything a view holds, as a model.
func held(v *view.View) mesh.Model {
	m := mesh.Model{
		Workloads: map[string]*mesh.Workload{}, Services: map[mesh.ServiceKey]*mesh.Service{}, Policies: map[mesh.PolicyKey]*mesh.Policy{},
	}
	for _, w := range v.Workloads() {
		m.Workloads[w.UID] = w
	}
	for _, s := range v.Services() {
		m.Services[s.Key()] = s
	}
	for _, p := range v.AllPolicies() {
		m.Policies[p.Key] = p
	}
	return m
}

var same = []cmp.Option{
	cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

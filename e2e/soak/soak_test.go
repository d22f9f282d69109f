package soak

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEveryTestWithALongFormIsInTheTable(t *testing.T) {
	want := scaled(t)
	var got []string
	for _, s := range Table() {
		if s.Promise == "" || s.Lane < 0 || s.Lane >= lanes {
			t.Errorf("%s: no promise, or no such lane", s.Test)
		}
		got = append(got, s.Test)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tests of e2e/suite that call Lasts or Times (-), and the table (+):\n%s", diff)
	}
}

// scaled are the tests of e2e/suite that call Lasts or Times themselves.
func scaled(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../suite/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests found: %v", err)
	}
	var names []string
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "Test") && fn.Name.Name != "TestMain" && scales(fn) {
				names = append(names, fn.Name.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func scales(fn *ast.FuncDecl) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if id, ok := call.Fun.(*ast.Ident); ok && (id.Name == "Lasts" || id.Name == "Times") {
			found = true
		}
		return true
	})
	return found
}

func TestWhatTheTestsSayIsGathered(t *testing.T) {
	out := strings.Join([]string{
		"=== RUN   TestOne",
		"    scale.go:60: failed: 0 of 6000",
		"--- PASS: TestOne (12.50s)",
		"    --- FAIL: TestOne/part (1.00s)",
		"--- SKIP: TestTwo (0.00s)",
		"--- PASS: TestOther (1.00s)",
		Figure{Test: "TestOne", Name: "failed", Text: "0 of 6000: none"}.Line(),
		"figure: nonsense",
	}, "\n")
	one, two, three := Story{Test: "TestOne"}, Story{Test: "TestTwo"}, Story{Test: "TestThree"}
	told := 0
	got, err := gather(strings.NewReader(out), []Story{one, two, three}, func(string) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	want := []Result{
		{Story: one, Passed: true, Took: 12500 * time.Millisecond, Figures: []Figure{{"TestOne", "failed", "0 of 6000: none"}}},
		{Story: two}, // skipped is not passed
		{Story: three},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if told != 8 {
		t.Errorf("%d of 8 lines were passed on", told)
	}
}

func TestTheReportNamesWhatFailed(t *testing.T) {
	var b strings.Builder
	results := []Result{
		{Story: Story{Test: "TestOne", Promise: "one holds"}, Passed: true, Took: time.Minute, Figures: []Figure{{"TestOne", "failed", "0"}}, Run: "short form of v1"},
		{Story: Story{Test: "TestTwo", Promise: "two holds"}},
	}
	if err := Report(&b, results); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## one holds", "passed in 1m0s (`TestOne`; short form of v1)", "| failed | 0 |", "## two holds", "FAILED"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &b)
		}
	}
}

func TestResultsOfStoriesThatWereNotRunStay(t *testing.T) {
	table, heard, heardToo := Table(), vigilOf(disturbing), vigilOf(watching)
	older := []Result{{Story: table[0], Run: "first"}, {Story: Story{Test: "TestThatIsGone"}, Run: "first"}, {Story: table[2], Run: "first"}, {Story: heard, Run: "first"}, {Story: heardToo, Run: "first"}}
	newer := []Result{{Story: table[2], Run: "second"}, {Story: table[1], Run: "second"}, {Story: heardToo, Run: "second"}}
	want := []Result{{Story: table[0], Run: "first"}, {Story: table[1], Run: "second"}, {Story: table[2], Run: "second"}, {Story: heard, Run: "first"}, {Story: heardToo, Run: "second"}}
	if diff := cmp.Diff(want, Renew(older, newer)); diff != "" {
		t.Error(diff)
	}
}

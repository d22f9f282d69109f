// Package sabotage breaks the product on purpose and looks who notices. It owns
// the list of breaks (table.go), each a small replacement in one source file
// that exists only in a build overlay, so that no switch for it is in the
// product; it refuses to touch the tree. Called by the sabotage command.
package sabotage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Sabotage is one way to break the product.
type Sabotage struct {
	// Name says what no longer works.
	Name string
	// File is the source file, from the root of the checkout.
	File string
	// Old must be in File exactly once; New takes its place.
	Old, New string
	// Tests are those that must turn red. Every one of them must pass on the
	// product as it is.
	Tests []Test
	// Root is set when the tests need root, for network namespaces.
	Root bool
}

// Test is one named test of one package.
type Test struct{ Package, Name string }

func (t Test) String() string { return t.Package + " " + t.Name }

// Verdict is what became of one sabotage.
type Verdict struct {
	Sabotage Sabotage
	// Red are the tests that noticed, Green those that did not.
	Red, Green []Test
	// Said are the first failures within them, by their full names.
	Said []string
	// Err is why there is no verdict: the break does not apply or compile, or
	// the tests fail without it.
	Err error
}

// Noticed reports whether every test named turned red.
func (v Verdict) Noticed() bool { return v.Err == nil && len(v.Red) > 0 && len(v.Green) == 0 }

// Run commits one sabotage in a copy of its file and runs its tests.
func Run(ctx context.Context, checkout string, s Sabotage) Verdict {
	v := Verdict{Sabotage: s}
	dir, err := os.MkdirTemp("", "ambit-sabotage-")
	if err != nil {
		return Verdict{Sabotage: s, Err: err}
	}
	defer os.RemoveAll(dir)
	overlay, err := plant(checkout, dir, s)
	if err != nil {
		return Verdict{Sabotage: s, Err: err}
	}
	for _, t := range s.Tests {
		result, inside, err := runTest(ctx, checkout, overlay, t)
		switch {
		case err != nil:
			v.Err = err
			return v
		case result == "fail":
			v.Red, v.Said = append(v.Red, t), append(v.Said, inside...)
		default:
			v.Green = append(v.Green, t)
		}
	}
	return v
}

// Baseline runs every test of the sabotages on the product as it is, and tells
// of each package that is done: a test that is red anyway, or skipped, proves
// nothing. All of those are named, with what they said.
func Baseline(ctx context.Context, checkout string, list []Sabotage, done func(pkg string, number, of int)) error {
	tests := map[string][]string{} // of a package
	for _, s := range list {
		for _, t := range s.Tests {
			if !slices.Contains(tests[t.Package], t.Name) {
				tests[t.Package] = append(tests[t.Package], t.Name)
			}
		}
	}
	var bad []error
	for i, pkg := range slices.Sorted(maps.Keys(tests)) {
		bad = append(bad, green(ctx, checkout, pkg, tests[pkg]))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		done(pkg, i+1, len(tests))
	}
	return errors.Join(bad...)
}

// green is an error that names the tests of a package that do not pass.
func green(ctx context.Context, checkout, pkg string, names []string) error {
	var whole []string
	for _, name := range names {
		test, _, _ := strings.Cut(name, "/")
		whole = append(whole, test)
	}
	slices.Sort(whole)
	whole = slices.Compact(whole)
	out, err := goTest(ctx, checkout, pkg, "-timeout", (time.Duration(len(whole)) * mostTime).String(), "-run", "^("+strings.Join(whole, "|")+")$")
	var bad []error
	var red []string
	for _, name := range names {
		result, _ := outcome(out, name)
		if result != "pass" {
			red = append(red, name)
		}
		switch result {
		case "pass":
		case "":
			bad = append(bad, fmt.Errorf("without any sabotage the test %s %s came to no verdict (%v)", pkg, name, err))
		default:
			bad = append(bad, fmt.Errorf("without any sabotage the test %s %s gives %q, want pass", pkg, name, result))
		}
	}
	if len(bad) > 0 {
		bad = append(bad, errors.New(tail(out, red...)))
	}
	return errors.Join(bad...)
}

// mostTime is how long a test may take; one that hangs counts as red.
const mostTime = time.Minute

// goTest runs tests of a package and gives what go test says, in JSON.
func goTest(ctx context.Context, checkout, pkg string, args ...string) (said []byte, err error) {
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"test", "-json", "-count=1"}, args...), "./"+pkg)...)
	cmd.Dir = checkout
	return cmd.CombinedOutput()
}

// plant writes the broken file and the overlay that puts it in place.
func plant(checkout, dir string, s Sabotage) (overlay string, err error) {
	path := filepath.Join(checkout, s.File)
	src, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("the sabotage no longer applies: %w", err)
	}
	if n := bytes.Count(src, []byte(s.Old)); n != 1 {
		return "", fmt.Errorf("the sabotage no longer applies: %s holds %d times:\n%s", s.File, n, s.Old)
	}
	broken := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(broken, bytes.Replace(src, []byte(s.Old), []byte(s.New), 1), 0o644); err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]map[string]string{"Replace": {path: broken}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, body, 0o644)
}

// runTest gives the outcome of one test: pass, fail or skip, and which tests
// inside of it failed. A test that did not come to a verdict of its own (it was
// not found, or the code does not compile) is an error; one that died by panic
// or hangs counts as failed.
func runTest(ctx context.Context, checkout, overlay string, t Test) (result string, inside []string, err error) {
	args := []string{"-timeout", mostTime.String(), "-run", "^" + t.Name + "$"}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	out, err := goTest(ctx, checkout, t.Package, args...)
	if ctx.Err() != nil {
		return "", nil, ctx.Err()
	}
	if result, inside = outcome(out, t.Name); result != "" {
		return result, inside, nil
	}
	return "", nil, fmt.Errorf("test %s came to no verdict (%v):\n%s", t, err, tail(out))
}

// outcome reads go test's JSON for the verdict on one top-level test.
func outcome(out []byte, name string) (result string, inside []string) {
	started := false
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test string }
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		switch {
		case e.Test == name && e.Action == "run":
			started = true
		case e.Test == name && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip"):
			result = e.Action
		case strings.HasPrefix(e.Test, name+"/") && e.Action == "fail":
			inside = append(inside, e.Test)
		case e.Test == "" && e.Action == "fail" && started && result == "":
			result = "fail" // the test took the whole process with it
		}
	}
	return result, inside
}

// tail is the readable end of go test's JSON: of what some tests said, or of all.
func tail(out []byte, tests ...string) string {
	of := func(name string) bool {
		top, _, _ := strings.Cut(name, "/")
		return len(tests) == 0 || slices.ContainsFunc(tests, func(t string) bool { return t == top || strings.HasPrefix(t, top+"/") })
	}
	var lines []string
	for line := range bytes.Lines(out) {
		var e struct{ Output, Test string }
		if json.Unmarshal(line, &e) != nil {
			e.Output = string(line)
		}
		if s := strings.TrimRight(e.Output, "\n"); s != "" && of(e.Test) {
			lines = append(lines, "  "+s)
		}
	}
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

package sabotage

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// toy makes a module with one function and one test of it.
func toy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range map[string]string{
		"go.mod":        "module toy\n\ngo 1.26\n",
		"a/a.go":        "package a\n\n// Allowed says yes to one.\nfunc Allowed(n int) bool { return n == 1 }\n",
		"a/a_test.go":   "package a\n\nimport \"testing\"\n\nfunc TestTwoIsRefused(t *testing.T) {\n\tif Allowed(2) {\n\t\tt.Fatal(\"two\")\n\t}\n}\n\nfunc TestOneIsAllowed(t *testing.T) {\n\tif !Allowed(1) {\n\t\tpanic(\"one\")\n\t}\n}\n\nfunc TestLater(t *testing.T) { t.Skip(\"later\") }\n",
		"unrelated.txt": "x",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const old = "return n == 1"

func TestWhoNoticesASabotage(t *testing.T) {
	dir := toy(t)
	refused, allowed := Test{"a", "TestTwoIsRefused"}, Test{"a", "TestOneIsAllowed"}
	for _, tt := range []struct {
		what    string
		s       Sabotage
		noticed bool
		errSays string
	}{
		{"everything is allowed", Sabotage{File: "a/a.go", Old: old, New: "return true", Tests: []Test{refused}}, true, ""},
		{"a test that panics counts as red", Sabotage{File: "a/a.go", Old: old, New: "return false", Tests: []Test{allowed}}, true, ""},
		{"a break without effect is not noticed", Sabotage{File: "a/a.go", Old: old, New: "return 1 == n", Tests: []Test{refused}}, false, ""},
		{"one of two tests sleeps", Sabotage{File: "a/a.go", Old: old, New: "return true", Tests: []Test{refused, allowed}}, false, ""},
		{"the code has moved on", Sabotage{File: "a/a.go", Old: "return n > 1", Tests: []Test{refused}}, false, "no longer applies"},
		{"the file is gone", Sabotage{File: "b/b.go", Old: old, Tests: []Test{refused}}, false, "no longer applies"},
		{"the break does not compile", Sabotage{File: "a/a.go", Old: old, New: "return nonsense", Tests: []Test{refused}}, false, "no verdict"},
		{"the test does not exist", Sabotage{File: "a/a.go", Old: old, New: "return true", Tests: []Test{{"a", "TestNone"}}}, false, "no verdict"},
		{"no test is named", Sabotage{File: "a/a.go", Old: old, New: "return true"}, false, ""},
	} {
		v := Run(context.Background(), dir, tt.s)
		if v.Noticed() != tt.noticed {
			t.Errorf("%s: noticed is %v: %+v", tt.what, v.Noticed(), v)
		}
		if (v.Err != nil) != (tt.errSays != "") || v.Err != nil && !strings.Contains(v.Err.Error(), tt.errSays) {
			t.Errorf("%s: error %v, want %q in it", tt.what, v.Err, tt.errSays)
		}
	}
	if src, err := os.ReadFile(filepath.Join(dir, "a/a.go")); err != nil || !strings.Contains(string(src), old) {
		t.Errorf("the tree was touched: %s, %v", src, err)
	}
}

func TestABaselineThatIsNotGreenIsAnError(t *testing.T) {
	dir := toy(t)
	packages := 0
	baseline := func(tests ...Test) error {
		return Baseline(context.Background(), dir, []Sabotage{{Tests: tests}}, func(string, int, int) { packages++ })
	}
	if err := baseline(Test{"a", "TestTwoIsRefused"}, Test{"a", "TestOneIsAllowed"}); err != nil || packages != 1 {
		t.Errorf("%d packages, %v", packages, err)
	}
	for name, want := range map[string]string{"TestLater": `gives "skip"`, "TestNone": "no verdict", "TestOneIsAllowed/inside": "no verdict"} {
		if err := baseline(Test{"a", "TestTwoIsRefused"}, Test{"a", name}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "TestTwo") { // of which nothing is to be said
			t.Errorf("%s was taken for a green one: %v", name, err)
		}
	}
}

// TestTheSabotagesCompile builds the product with all of them at once.
func TestTheSabotagesCompile(t *testing.T) {
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, broken, packages := t.TempDir(), map[string][]byte{}, map[string]bool{}
	for _, s := range Table() {
		src, ok := broken[s.File]
		if !ok {
			if src, err = os.ReadFile(filepath.Join(checkout, s.File)); err != nil {
				t.Fatal(err)
			}
		}
		broken[s.File] = bytes.Replace(src, []byte(s.Old), []byte(s.New), 1)
		packages["./"+filepath.Dir(s.File)] = true
	}
	replace := map[string]string{}
	for file, src := range broken {
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(to, src, 0o644); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(checkout, file)] = to
	}
	body, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, body, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", append([]string{"build", "-overlay", overlay}, slices.Sorted(maps.Keys(packages))...)...)
	cmd.Dir = checkout
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestEverySabotageApplies keeps the table in step with the code.
func TestEverySabotageApplies(t *testing.T) {
	for _, s := range Table() {
		if _, err := plant("../..", t.TempDir(), s); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		if len(s.Tests) == 0 {
			t.Errorf("%s: no test is named", s.Name)
		}
	}
}

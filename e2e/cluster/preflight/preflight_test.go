package preflight

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAReportIsFineUnlessSomethingFailed(t *testing.T) {
	for name, c := range map[string]struct {
		report Report
		want   bool
	}{
		"nothing found":         {nil, true},
		"all is well":           {Report{ok("a", "fine")}, true},
		"a warning is no end":   {Report{ok("a", "fine"), warn("b", "slow")}, true},
		"one failure is enough": {Report{ok("a", "fine"), fail("b", "run `x`"), warn("c", "slow")}, false},
	} {
		if c.report.OK() != c.want {
			t.Errorf("%s: OK is %v", name, !c.want)
		}
	}
}

func TestTheTableShowsLevelAndAdvice(t *testing.T) {
	table := Report{ok("disk", "62 GiB"), fail("packages", "run `%s` as root", "apt-get install runc")}.Table()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "ok ") || !strings.HasPrefix(lines[1], "FAIL ") ||
		!strings.Contains(lines[1], "run `apt-get install runc` as root") {
		t.Errorf("got\n%s", table)
	}
}

func TestPackagesOfMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	want := missing()
	for _, pkg := range []string{"runc", "nftables", "conntrack", "iproute2"} {
		if !strings.Contains(" "+strings.Join(want, " ")+" ", " "+pkg+" ") {
			t.Errorf("%s is not among %v", pkg, want)
		}
	}
	f := packages(t.Context(), Config{Install: false})
	if f.Level != Fail || !strings.Contains(f.Found, "apt-get install") {
		t.Errorf("got %+v", f)
	}
}

func TestATooOldOrMissingGoIsSaid(t *testing.T) {
	for said, want := range map[string]Level{"go1.19.8": Fail, "go1.25.9": Fail, "go1.26.0": OK, "go1.27rc1": OK, "": Fail} {
		dir := t.TempDir()
		if said != "" {
			script := "#!/bin/sh\necho " + said + "\n"
			if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("PATH", dir)
		if f := goVersion(t.Context()); f.Level != want {
			t.Errorf("%q: %+v", said, f)
		}
	}
}

func TestFreeSpaceIsThatOfTheNearestDirectoryThatExists(t *testing.T) {
	dir := t.TempDir()
	here, err := freeGiB(dir)
	if err != nil {
		t.Fatal(err)
	}
	below, err := freeGiB(filepath.Join(dir, "not", "yet"))
	if err != nil || below > here+1 || here > below+1 {
		t.Errorf("%d GiB here and %d below, %v", here, below, err)
	}
	if _, err := freeGiB(""); err == nil {
		t.Error("no directory has space")
	}
}

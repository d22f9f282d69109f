package supply

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestACheckoutIsFoundFromBelow(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "go.mod"), "module "+modulePath+"\n\ngo 1.26.0\n")
	write(t, filepath.Join(root, "e2e/cluster/kube/go.mod"), "module "+modulePath+"/e2e/cluster/kube\n")
	for _, below := range []string{".", "e2e", "e2e/cluster/kube"} {
		if got, err := FindCheckout(filepath.Join(root, below)); err != nil || got != root {
			t.Errorf("from %s: %q, %v", below, got, err)
		}
	}
	if got, err := FindCheckout(t.TempDir()); err == nil || !strings.Contains(err.Error(), "--checkout") {
		t.Errorf("outside of any: %q, %v", got, err)
	}
}

func TestAProgramIsBuiltWhenItIsMissingOldOrNoProgram(t *testing.T) {
	// The test itself is a program of Go, of this module.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Checkout: t.TempDir()}
	write(t, filepath.Join(cfg.Bin(), "self"), string(self))
	write(t, filepath.Join(cfg.Bin(), "text"), "no program")
	for name, c := range map[string]struct {
		p    program
		want string
	}{
		"missing":           {program{name: "absent", version: "v1"}, "missing"},
		"not a program":     {program{name: "text", version: "v1"}, "unreadable"},
		"something else":    {program{name: "self", pkg: "example.org/x", version: "v1.2.3"}, "wanted v1.2.3"},
		"of this checkout":  {program{name: "self", pkg: "./x"}, "built from this checkout"},
		"source is missing": {program{name: "self", dir: "none", needs: "example.org/y@v1"}, "unreadable"},
	} {
		if got := c.p.outdated(cfg); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAChangedSourceIsNoticed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.go"), "package main")
	if got := newer(time.Now().Add(time.Minute), dir); got != "" {
		t.Errorf("a program younger than its source is outdated: %s", got)
	}
	if got := newer(time.Now().Add(-time.Minute), dir); !strings.Contains(got, "main.go") {
		t.Errorf("a changed source went unnoticed: %q", got)
	}
}

func TestWhoBuildsInADirectoryHoldsItAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	quiet := slog.New(slog.DiscardHandler)
	release, err := Hold(t.Context(), dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Hold(ctx, dir, quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("a second one: %v, want to wait until it is told to stop", err)
	}
	waited := make(chan error, 1)
	go func() {
		release, err := Hold(t.Context(), dir, quiet)
		if err == nil {
			release()
		}
		waited <- err
	}()
	release()
	if err := <-waited; err != nil {
		t.Errorf("after the first one has ended: %v", err)
	}
}

func TestVersionsOfTheTableAndOfTheModuleFileAgree(t *testing.T) {
	mod, err := os.ReadFile("../kube/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "k8s.io/kubernetes "+kubernetesVersion+"\n") {
		t.Errorf("kube/go.mod does not name k8s.io/kubernetes %s", kubernetesVersion)
	}
	names := map[string]bool{}
	for _, p := range programs() {
		if names[p.name] {
			t.Errorf("there are two programs %s", p.name)
		}
		names[p.name] = true
		if p.pkg == "" || p.version == "" && p.dir == "" {
			t.Errorf("nobody knows where %s comes from", p.name)
		}
	}
}

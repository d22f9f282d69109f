package apiserver

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// program is the binary of Kubernetes, if somebody has built it.
func program(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../build/bin/kube")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs build/bin/kube: run `make demo` or `cluster build` first")
	}
	return path
}

func TestItAnswersAndLeavesNothingBehind(t *testing.T) {
	kube := program(t)
	s, err := Start(t.Context(), Config{Program: kube, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(kube, "kubectl", "--kubeconfig", s.Kubeconfig, "get", "namespace", "default", "-o", "name").CombinedOutput()
	if err != nil || string(out) != "namespace/default\n" {
		t.Errorf("it says %q, %v", out, err)
	}
	s.Close()
	for _, p := range s.processes {
		if p.cmd.ProcessState == nil {
			t.Errorf("%s still runs", p.name)
		}
	}
}

func TestWhatDoesNotStartIsSaid(t *testing.T) {
	kube := program(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "etcd"), nil, 0o600); err != nil { // where its data would be
		t.Fatal(err)
	}
	if _, err := Start(context.Background(), Config{Program: kube, Dir: dir}); err == nil {
		t.Error("a server without a store started")
	}
}

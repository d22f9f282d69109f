package netnstest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// Path is a path by which ns can be opened.
func Path(ns *linux.NetNS) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.File().Fd()) }

// Proc is a directory like /proc whose processes are in namespaces of the
// test's choice.
type Proc string

// NewProc makes one whose process 1 is in the node's namespace.
func NewProc(t testing.TB, node *linux.NetNS) Proc {
	t.Helper()
	p := Proc(t.TempDir())
	p.Add(t, 1, "0::/init", node, 1)
	return p
}

// Add adds a process.
func (p Proc) Add(t testing.TB, pid int, cgroup string, ns *linux.NetNS, start int) {
	t.Helper()
	dir := filepath.Join(string(p), fmt.Sprint(pid))
	if err := os.MkdirAll(filepath.Join(dir, "ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"cgroup": cgroup, "stat": fmt.Sprintf("%d (x) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 %d 1 1", pid, start)}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(Path(ns), filepath.Join(dir, "ns", "net")); err != nil {
		t.Fatal(err)
	}
}

// Remove ends a process.
func (p Proc) Remove(t testing.TB, pid int) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(string(p), fmt.Sprint(pid))); err != nil {
		t.Fatal(err)
	}
}

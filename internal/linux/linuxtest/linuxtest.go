// Package linuxtest gives tests network namespaces that end with the test. It
// refuses to be used by products. Tests that need it are skipped, with the
// reason, where namespaces cannot be made or a program is missing.
package linuxtest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// NewNetNS makes an unnamed network namespace with its loopback up. It ends
// with the test, or with the last process inside.
func NewNetNS(t testing.TB) *linux.NetNS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	type result struct {
		ns  *linux.NetNS
		err error
	}
	made := make(chan result, 1)
	go func() {
		// The thread is not unlocked: the runtime ends it with the goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: err}
			return
		}
		ns, err := linux.OpenNetNS("/proc/thread-self/ns/net")
		made <- result{ns, err}
	}()
	r := <-made
	if r.err == unix.EPERM {
		t.Skip("may not make network namespaces here (CAP_SYS_ADMIN)")
	}
	if r.err != nil {
		t.Fatalf("making a network namespace: %v", r.err)
	}
	t.Cleanup(func() { r.ns.Close() })
	Run(t, r.ns, "ip", "link", "set", "lo", "up")
	return r.ns
}

// Run runs a command inside ns, its last argument as standard input if the
// one before is "-", and gives what it printed.
func Run(t testing.TB, ns *linux.NetNS, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s (make test installs it): %v", name, err)
	}
	var out []byte
	err := ns.Do(func() (err error) {
		input := ""
		if n := len(args); n > 1 && args[n-2] == "-" {
			input, args = args[n-1], args[:n-1]
		}
		c := exec.Command(name, args...)
		c.Stdin = strings.NewReader(input)
		out, err = c.CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

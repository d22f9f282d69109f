package machine

import (
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func startSleep(t *testing.T) (*exec.Cmd, Process) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, p
}

func TestAProcessIsItselfByIdAndStart(t *testing.T) {
	_, p := startSleep(t)
	if !p.Alive() {
		t.Error("a running process is not alive")
	}
	if (Process{PID: p.PID, Start: p.Start + 1}).Alive() {
		t.Error("another process under the same id counts as this one")
	}
	if (Process{}).Alive() {
		t.Error("no process is alive")
	}
}

func TestOnlyTheVeryProcessIsSignalled(t *testing.T) {
	_, p := startSleep(t)
	if err := (Process{PID: p.PID, Start: p.Start - 1}).Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !p.Alive() {
		t.Fatal("a signal for a process of the past ended one of today")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if p.Alive() {
		t.Error("it lives on")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Errorf("a signal for the dead is an error: %v", err)
	}
}

func TestAMachineThatWasKilledIsAliveForAWhileButDoesNotRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making process namespaces needs root")
	}
	first := exec.Command("sleep", "600")
	first.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Identify(first.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Running() {
		t.Error("a running process does not run")
	}
	// The kernel ends the first process only when the last one of its namespace
	// has been buried, and the parent of this one is made to let it lie.
	parent := exec.Command("nsenter", "--pid=/proc/"+strconv.Itoa(p.PID)+"/ns/pid", "sleep", "600")
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(parent.Process.Pid)
	eventually(t, func() bool {
		children, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
		return err == nil && len(children) > 0
	})
	if err := parent.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = parent.Process.Kill()
		_ = parent.Wait()
		_ = first.Wait()
	})
	eventually(t, func() bool {
		st, err := readStat(parent.Process.Pid)
		return err == nil && st.state == 'T'
	})
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if p.Running() {
		t.Error("a process that was killed counts as running")
	}
	if !p.Alive() {
		t.Error("it is gone before its namespace is: the test shows nothing")
	}
	if err := parent.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(10 * time.Second); err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 10 s")
		}
	}
}

func TestWaitingForAProcessThatStaysEnds(t *testing.T) {
	_, p := startSleep(t)
	if err := p.Wait(20 * time.Millisecond); err == nil {
		t.Error("it was said to have ended")
	}
}

func TestAServiceAwaitsAPathOrAListener(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	for what, want := range map[string]bool{"": true, dir: true, filepath.Join(dir, "x"): false, "tcp:" + addr: true} {
		if present(what) != want {
			t.Errorf("present(%q) is %v", what, !want)
		}
	}
	l.Close()
	if present("tcp:" + addr) {
		t.Error("a closed listener is present")
	}
}

func TestAServiceThatEndsAgainAndAgainIsStartedEverMoreSeldom(t *testing.T) {
	s := &supervisor{log: quiet(), services: []*service{{Service: Service{Name: "x"}, delay: restartDelay}}}
	svc, now := s.services[0], time.Now()
	var waits []time.Duration
	for range 7 {
		svc.pid, svc.started = 42, now
		s.note(42, 0, now.Add(time.Second))
		waits = append(waits, svc.next.Sub(now.Add(time.Second)))
	}
	if waits[0] != restartDelay || waits[1] != 2*restartDelay || waits[6] != restartDelayMax {
		t.Errorf("waits are %v", waits)
	}
	// One that ran for long is trusted again.
	svc.pid, svc.started = 42, now
	s.note(42, 0, now.Add(time.Hour))
	if got := svc.next.Sub(now.Add(time.Hour)); got != restartDelay {
		t.Errorf("after a long life it waits %s", got)
	}
	if svc.pid != 0 {
		t.Error("it still counts as running")
	}
}

func TestFilesOfAMachineAreFoundOnItsDisk(t *testing.T) {
	s := Spec{Disk: "/d"}
	for path, want := range map[string]string{
		"/etc/cni/net.d/x": "/d/etc/cni/net.d/x", "/var/lib/kubelet": "/d/lib/kubelet",
		"/opt/cni/bin": "/d/opt/cni/bin", "/run/x": "", "/etcetera": "", "/var/library": "",
	} {
		got, ok := s.HostPath(path)
		if got != want || ok != (want != "") {
			t.Errorf("%s is at %q, %v", path, got, ok)
		}
	}
}

func TestASpecThatLacksSomethingIsRefused(t *testing.T) {
	good := Spec{Name: "a", Netns: "n", Cgroup: "c", Disk: t.TempDir(), Bin: "b"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Spec){
		"no name":                   func(s *Spec) { s.Name = "" },
		"no network":                func(s *Spec) { s.Netns = "" },
		"no cgroup":                 func(s *Spec) { s.Cgroup = "" },
		"no disk":                   func(s *Spec) { s.Disk = "" },
		"no programs":               func(s *Spec) { s.Bin = "" },
		"a service without command": func(s *Spec) { s.Services = []Service{{Name: "x"}} },
	} {
		s := good
		spoil(&s)
		if s.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestTreesAreCopiedWithTheirLinks(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	if err := os.WriteFile(filepath.Join(from, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a", filepath.Join(from, "b")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time over the first
		if err := copyTree(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if dest, err := os.Readlink(filepath.Join(to, "b")); err != nil || dest != "a" {
		t.Errorf("link is %q, %v", dest, err)
	}
	if data, err := os.ReadFile(filepath.Join(to, "b")); err != nil || string(data) != "x" {
		t.Errorf("content is %q, %v", data, err)
	}
}

func TestACgroupHoldsKillsAndGoes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	const path = "ambit-e2e-unit-test/m"
	t.Cleanup(func() {
		_ = KillCgroup(path, 5*time.Second)
		_ = RemoveCgroup(path, 5*time.Second)
		RemoveEmptyCgroup("ambit-e2e-unit-test")
	})
	if err := MakeCgroup(path); err != nil {
		t.Fatal(err)
	}
	_, p := startSleep(t)
	roots, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	procs := filepath.Join(roots[0], path, systemLeaf, "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(p.PID)), 0); err != nil {
		t.Fatal(err)
	}
	if pids, err := cgroupProcesses(path); err != nil || len(pids) != 1 || pids[0] != p.PID {
		t.Fatalf("processes are %v, %v", pids, err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Wait(10 * time.Second) }()
	if err := KillCgroup(path, 10*time.Second); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := RemoveCgroup(path, 10*time.Second); err != nil {
		t.Error(err)
	}
	for _, root := range roots {
		if _, err := os.Stat(filepath.Join(root, path)); err == nil {
			t.Errorf("%s is still there", filepath.Join(root, path))
		}
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

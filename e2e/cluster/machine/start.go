package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// initProgram is the name of the program in Spec.Bin that becomes PID 1.
const initProgram = "machine-init"

// readyFile appears on the disk when the machine's mounts stand and its
// services are being started.
func readyFile(disk string) string { return filepath.Join(disk, "ready") }

// BootLog is where the init itself speaks.
func BootLog(disk string) string { return filepath.Join(disk, "log", "init.log") }

// Start boots a machine and returns its PID 1 as the host sees it. The machine
// outlives the caller.
func Start(spec Spec) (Process, error) {
	if err := spec.Validate(); err != nil {
		return Process{}, err
	}
	if err := prepareDisk(spec); err != nil {
		return Process{}, fmt.Errorf("prepare disk of %s: %w", spec.Name, err)
	}
	if err := MakeCgroup(spec.Cgroup); err != nil {
		return Process{}, err
	}
	p, err := launch(spec)
	if err != nil {
		return Process{}, fmt.Errorf("boot %s: %w", spec.Name, err)
	}
	if err := awaitReady(spec, p, 15*time.Second); err != nil {
		_ = Kill(p, spec.Cgroup)
		return Process{}, err
	}
	return p, nil
}

func prepareDisk(spec Spec) error {
	for _, d := range privateDirs {
		if err := os.MkdirAll(filepath.Join(spec.Disk, d.disk), 0o755); err != nil {
			return err
		}
	}
	if err := os.Remove(readyFile(spec.Disk)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return spec.save()
}

// launch starts the init inside the machine's network namespace and in new
// namespaces of every other kind.
func launch(spec Spec) (Process, error) {
	log, err := os.Create(BootLog(spec.Disk))
	if err != nil {
		return Process{}, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(spec.Bin, initProgram), specPath(spec.Disk))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	cmd.SysProcAttr = &unix.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	started := make(chan error, 1)
	go func() {
		// The child inherits the network namespace of the thread that forks it.
		// The thread is never unlocked, so it ends with this goroutine.
		runtime.LockOSThread()
		started <- func() error {
			ns, err := os.Open(spec.Netns)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter %s: %w", spec.Netns, err)
			}
			return cmd.Start()
		}()
	}()
	if err := <-started; err != nil {
		return Process{}, err
	}
	defer func() { _ = cmd.Process.Release() }()
	return Identify(cmd.Process.Pid)
}

func awaitReady(spec Spec, p Process, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		if _, err := os.Stat(readyFile(spec.Disk)); err == nil {
			return nil
		}
		if !p.Alive() {
			said, _ := os.ReadFile(BootLog(spec.Disk))
			return fmt.Errorf("%s ended while it booted: %s", spec.Name, bytes.TrimSpace(said))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s has not booted after %s; see %s", spec.Name, timeout, BootLog(spec.Disk))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Stop shuts a machine down in good order: its services are asked to end, then
// every other process, and what is left after the grace is killed.
func Stop(p Process, cgroup string, grace time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	_ = p.Wait(grace)
	return Kill(p, cgroup)
}

// Kill pulls the plug and buries what the machine leaves: its processes and its cgroup.
func Kill(p Process, cgroup string) error {
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	if err := p.Wait(10 * time.Second); err != nil {
		return err
	}
	if err := KillCgroup(cgroup, 10*time.Second); err != nil {
		return err
	}
	return RemoveCgroup(cgroup, 10*time.Second)
}

package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Process names one process for good: a process id alone is used again by the
// kernel, the id with its start time is not.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, field 22 of /proc/PID/stat
}

// Identify returns the process that has this id now.
func Identify(pid int) (Process, error) {
	st, err := readStat(pid)
	if err != nil {
		return Process{}, err
	}
	return Process{PID: pid, Start: st.start}, nil
}

// Alive reports whether this very process still runs (a zombie does not).
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	st, err := readStat(p.PID)
	return err == nil && st.start == p.Start && st.state != 'Z' && st.state != 'X'
}

// Running reports whether the process is alive and will stay so: the first
// process of a killed machine is alive until every other one has ended, which
// takes a while, but nothing runs in there any more.
func (p Process) Running() bool {
	if p.PID <= 0 {
		return false
	}
	st, err := readStat(p.PID)
	return err == nil && st.start == p.Start && st.state != 'Z' && st.state != 'X' && !st.ending
}

// Signal sends a signal if, and only if, the process is still the same one.
func (p Process) Signal(sig unix.Signal) error {
	if !p.Alive() {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return ignoreGone(err)
	}
	defer unix.Close(fd)
	// The descriptor is open: if the process is still ours now, the id cannot
	// pass to another one between this check and the signal.
	if !p.Alive() {
		return nil
	}
	return ignoreGone(unix.PidfdSendSignal(fd, sig, nil, 0))
}

// Wait waits until the process has ended.
func (p Process) Wait(timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for p.Alive() {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d has not ended after %s", p.PID, timeout)
		}
		// A process that is ours to reap stays a zombie until somebody does.
		var ws unix.WaitStatus
		_, _ = unix.Wait4(p.PID, &ws, unix.WNOHANG, nil)
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// stat is what of /proc/PID/stat (proc_pid_stat(5)) matters here.
type stat struct {
	start  uint64
	state  byte
	ending bool // it is exiting, or has been killed and not noticed yet
}

const flagExiting = 0x4 // PF_EXITING of linux/sched.h

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The second field is the name in parentheses and may hold anything.
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return stat{}, fmt.Errorf("process %d: unreadable stat", pid)
	}
	fields := bytes.Fields(data[i+1:]) // fields[0] is the page's field 3
	if len(fields) < 29 {
		return stat{}, fmt.Errorf("process %d: short stat", pid)
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process %d: start time: %w", pid, err)
	}
	flags, err := strconv.ParseUint(string(fields[6]), 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process %d: flags: %w", pid, err)
	}
	pending, err := strconv.ParseUint(string(fields[28]), 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process %d: pending signals: %w", pid, err)
	}
	killed := pending&(1<<(unix.SIGKILL-1)) != 0
	return stat{start: start, state: fields[0][0], ending: flags&flagExiting != 0 || killed}, nil
}

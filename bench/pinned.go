package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The cores of what is compared and of all the rest. On a machine with one core
// both are the same.
const (
	proxyCore = 0
	restCore  = 1
)

// pinned makes a command that runs on one core from its first instruction on,
// so that a Go program knows of one only.
func pinned(core int, name string, args ...string) *exec.Cmd {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil || !set.IsSet(core) {
		return exec.Command(name, args...)
	}
	return exec.Command("taskset", append([]string{"-c", strconv.Itoa(core), name}, args...)...)
}

// startPinned runs a role on one core and waits until it is ready.
func startPinned(core int, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return run(pinned(core, self, append([]string{"role"}, args...)...), strings.Join(args, " "))
}

// run starts a command that says when it is ready.
func run(cmd *exec.Cmd, name string) (*child, error) {
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c := &child{name: name, cmd: cmd, stdin: stdin, out: bufio.NewReader(stdout)}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	if err := c.expect("ready"); err != nil {
		c.stop()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return c, nil
}

// tell reads a value that the child prints.
func (c *child) tell(v any) error {
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: it ended", c.name)
	}
	return json.Unmarshal(line, v)
}

// memory is what a process has resident now, in bytes.
func memory(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(b))[1], 64)
	return pages * float64(unix.Getpagesize()), err
}

package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// cpu is the processor time that a child has used, in seconds. On a busy machine
// it says more than the clock.
func (c *child) cpu() (user, system float64, err error) {
	return processorTime(c.cmd.Process.Pid)
}

// cpuOfProcess is a process's user and system time together.
func cpuOfProcess(pid int) (float64, error) {
	user, system, err := processorTime(pid)
	return user + system, err
}

func processorTime(pid int) (user, system float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	const ticks = 100 // USER_HZ on every Linux that Go knows
	user, err1 := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	if err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("reading processor time of %d", pid)
	}
	return user / ticks, system / ticks, nil
}

// cpuOf adds up processes.
func cpuOf(procs []*child) (total float64) {
	for _, c := range procs {
		if u, s, err := c.cpu(); err == nil {
			total += u + s
		}
	}
	return total
}

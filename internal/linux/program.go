package linux

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ReleaseProgram takes the pages of the program's own file out of this process:
// most of what a start needs is never needed again, and counts as the process's
// memory. What is needed comes back from the kernel's cache when it is touched.
// It needs no privilege.
func ReleaseProgram() error {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("releasing the program: %w", err)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("releasing the program: %w", err)
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		start, end, ok := programPart(lines.Text(), self)
		if !ok {
			continue
		}
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); e != 0 {
			return fmt.Errorf("releasing the program: %w", e)
		}
	}
	return nil
}

// programPart reads a line of maps: a part of the program's file that nobody
// may write to, for what was written would be lost.
func programPart(line, program string) (start, end uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[5] != program || f[1] != "r--p" && f[1] != "r-xp" {
		return 0, 0, false
	}
	if _, err := fmt.Sscanf(f[0], "%x-%x", &start, &end); err != nil {
		return 0, 0, false
	}
	return start, end, true
}

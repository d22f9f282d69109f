package linux

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// RaiseOpenFiles lifts the soft limit of open files to the hard one and gives
// it. It needs no privilege.
func RaiseOpenFiles() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	if l.Cur == l.Max {
		return l.Cur, nil
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("raising the limit of open files: %w", err)
	}
	return l.Max, nil
}

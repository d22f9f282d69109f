package supply

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Hold has those who build in a directory, which it makes, wait for one another:
// two that write the same files at once break both. It tells log if it waits.
// The lock is the directory itself, and ends with its release or the process.
func Hold(ctx context.Context, dir string, log *slog.Logger) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", dir, err)
		}
		if !told {
			log.Info("another process builds here: waiting for it", "dir", dir)
		}
		select {
		case <-time.After(100 * time.Millisecond): // the kernel tells nobody when a lock is free, but to who sleeps in it
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for who builds in %s: %w", dir, ctx.Err())
		}
	}
}

package kept

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prepare makes the directory, or sees that it is ours alone, and clears away
// what a process that ended was writing.
func prepare(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	about, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !about.IsDir() {
		return fmt.Errorf("%s is no directory", dir)
	}
	if err := private(about, 0o700); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	parts, err := filepath.Glob(filepath.Join(dir, "*"+temporary))
	if err != nil {
		return err
	}
	for _, part := range parts {
		if f, err := os.Lstat(part); err == nil && time.Since(f.ModTime()) > time.Minute {
			os.Remove(part)
		}
	}
	return nil
}

// private refuses what others than this user could have written or could read.
func private(f fs.FileInfo, mode fs.FileMode) error {
	if !f.Mode().IsRegular() && !f.IsDir() {
		return errors.New("it is no file")
	}
	if f.Mode().Perm() != mode {
		return fmt.Errorf("its mode is %04o, not %04o", f.Mode().Perm(), mode)
	}
	if s, ok := f.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d", s.Uid)
	}
	return nil
}

// inMemory says whether what is written there never reaches a disk.
func inMemory(dir string) bool {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return false
	}
	return s.Type == unix.TMPFS_MAGIC || s.Type == unix.RAMFS_MAGIC
}

package chain

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// readConfs reads the configurations of a directory.
func readConfs(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading network configurations: %w", err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if e.IsDir() || !isConf(e.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile; its removal wakes us again
		}
		if err != nil {
			return nil, fmt.Errorf("reading network configurations: %w", err)
		}
		files[e.Name()] = b
	}
	return files, nil
}

// apply does a change: first what is written, then what is removed, so that at
// no moment there is no configuration.
func (c Change) apply(dir string) error {
	for name, b := range c.Write {
		if err := replace(filepath.Join(dir, name), b, modeOf(filepath.Join(dir, name))); err != nil {
			return err
		}
	}
	for _, name := range c.Remove {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a network configuration: %w", err)
		}
	}
	return nil
}

// modeOf keeps a file's mode; a new one is root's alone.
func modeOf(path string) fs.FileMode {
	if st, err := os.Stat(path); err == nil {
		return st.Mode().Perm()
	}
	return 0o600
}

// replace writes a file so that readers see the old one or the new one, whole,
// even after a power cut. The temporary name is none that runtimes read.
func replace(path string, b []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".ambit-*.tmp")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // gone already if all went well
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// copyBinary makes path equal to source, unless it is. A runtime that runs the
// old one just now is not disturbed.
func copyBinary(source, path string) (changed bool, err error) {
	b, err := os.ReadFile(source)
	if err != nil {
		return false, fmt.Errorf("reading the plugin: %w", err)
	}
	if st, err := os.Stat(path); err == nil && st.Mode().Perm() == 0o755 {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
			return false, nil
		}
	}
	return true, replace(path, b, 0o755)
}

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// hostLimits are the only settings of the host that clusters change, and only
// upwards: they count what all machines use together, whatever namespace they
// are in. A cluster of two nodes takes about 25 inotify instances, each pod may
// take more, and many systems allow 128; then containerd starts without its
// half for Kubernetes, and API servers do not start at all.
var hostLimits = map[string]int{
	"fs/inotify/max_user_instances": 8192,
	"fs/inotify/max_user_watches":   524288,
}

// savedLimits is the file, beside the clusters' state, that remembers what the
// host had before.
const savedLimits = ".host-limits.json"

// limits are host settings below dir, remembered in file.
type limits struct {
	dir, file string
}

func limitsOf(root string) limits {
	return limits{dir: "/proc/sys", file: filepath.Join(root, savedLimits)}
}

// raise sets every limit that is lower than want, after it wrote down what was
// there. The caller holds the lock of the clusters' directory.
func (l limits) raise(want map[string]int) error {
	saved, err := l.saved()
	if err != nil {
		return err
	}
	for name, value := range want {
		have, err := l.get(name)
		if err != nil || have >= value {
			continue // a kernel without it needs none
		}
		if _, ok := saved[name]; !ok {
			saved[name] = have
		}
		data, err := json.Marshal(saved)
		if err != nil {
			return err
		}
		if err := os.WriteFile(l.file, data, 0o600); err != nil {
			return err
		}
		if err := l.set(name, value); err != nil {
			return fmt.Errorf("raise %s from %d to %d: %w", name, have, value, err)
		}
	}
	return nil
}

// restore puts back what raise changed, except where somebody changed it since.
func (l limits) restore(want map[string]int) error {
	saved, err := l.saved()
	if err != nil {
		return err
	}
	for name, value := range saved {
		if have, err := l.get(name); err != nil || have != want[name] {
			continue
		}
		if err := l.set(name, value); err != nil {
			return fmt.Errorf("restore %s to %d: %w", name, value, err)
		}
	}
	if err := os.Remove(l.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (l limits) saved() (map[string]int, error) {
	saved := map[string]int{}
	data, err := os.ReadFile(l.file)
	if errors.Is(err, fs.ErrNotExist) {
		return saved, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &saved); err != nil {
		return nil, fmt.Errorf("read %s: %w", l.file, err)
	}
	return saved, nil
}

func (l limits) get(name string) (int, error) {
	data, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

func (l limits) set(name string, value int) error {
	return os.WriteFile(filepath.Join(l.dir, name), []byte(strconv.Itoa(value)), 0o644)
}

package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// systemLeaf is where the machine's own services live, below its cgroup: on
// cgroup v2 a group that has children may hold no processes.
const systemLeaf = "system"

// CgroupV2 reports whether the host has the unified hierarchy only.
func CgroupV2() bool {
	var st unix.Statfs_t
	return unix.Statfs(cgroupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// hierarchies returns the mount points of every cgroup hierarchy of the host:
// one on v2, one per controller on v1.
func hierarchies() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 3 || (f[2] != "cgroup" && f[2] != "cgroup2") || slices.Contains(found, f[1]) {
			continue
		}
		// Only the host's own mounts: another tool may have mounted a view of its own.
		if f[1] == cgroupRoot || filepath.Dir(f[1]) == cgroupRoot {
			found = append(found, f[1])
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted below " + cgroupRoot)
	}
	return found, nil
}

// MakeCgroup creates the group in every hierarchy, with a leaf for services.
func MakeCgroup(path string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := root
		for _, part := range append(strings.Split(path, "/"), systemLeaf) {
			enableControllers(dir)
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("create cgroup: %w", err)
			}
			if err := copyCpuset(parent, dir); err != nil {
				return fmt.Errorf("prepare cgroup %s: %w", dir, err)
			}
		}
	}
	return nil
}

// enableControllers passes every controller of a v2 group on to its children.
// One that cannot be passed on is left out: the kubelet says what it lacks.
func enableControllers(dir string) {
	if !CgroupV2() {
		return // beside v1 the unified hierarchy serves to find processes only
	}
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(data)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// copyCpuset gives a v1 cpuset group the processors of its parent: a new one
// has none, and no process may enter it.
func copyCpuset(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(bytes.TrimSpace(own)) > 0 {
			continue
		}
		value, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(value)) == 0 {
			continue // v2: empty means "as the parent"
		}
		if err := os.WriteFile(filepath.Join(dir, name), value, 0); err != nil {
			return err
		}
	}
	return nil
}

// joinCgroup moves the calling process into the machine's leaf for services.
func joinCgroup(path string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		// Zero means the writer, whatever PID namespace it is in.
		procs := filepath.Join(root, path, systemLeaf, "cgroup.procs")
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// KillCgroup ends every process in the group and below it, whoever started it:
// a group is only ever ours.
func KillCgroup(path string, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		pids, err := cgroupProcesses(path)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s still holds processes %v after %s", path, pids, timeout)
		}
		for _, pid := range pids {
			if p, err := Identify(pid); err == nil {
				_ = p.Signal(unix.SIGKILL)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// RemoveCgroup removes the group and everything below it. Missing is fine.
func RemoveCgroup(path string, timeout time.Duration) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(timeout)
	for _, root := range roots {
		for {
			err := removeTree(filepath.Join(root, path))
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup: %w", err)
			}
			time.Sleep(20 * time.Millisecond) // the kernel is still burying the processes
		}
	}
	return nil
}

// removeTree removes cgroup directories from the leaves up. The files in them
// are the kernel's and go with them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

func cgroupProcesses(path string) ([]int, error) {
	roots, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Join(root, path), func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return ignoreMissing(err)
			}
			data, err := os.ReadFile(file)
			for f := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 && !slices.Contains(pids, pid) {
					pids = append(pids, pid)
				}
			}
			return ignoreMissing(err)
		})
		if err != nil {
			return nil, err
		}
	}
	return pids, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// RemoveEmptyCgroup removes a group of groups once the last of them is gone;
// one that is still in use stays.
func RemoveEmptyCgroup(path string) {
	roots, err := hierarchies()
	if err != nil {
		return
	}
	for _, root := range roots {
		_ = unix.Rmdir(filepath.Join(root, path))
	}
}

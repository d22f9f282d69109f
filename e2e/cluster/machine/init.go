package machine

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Init is PID 1 of a machine: it makes the machine's view of the file system,
// starts its services and keeps them alive until it is asked to end.
// specFile is the path of the Spec on the host.
func Init(specFile string, log *slog.Logger) error {
	if os.Getpid() != 1 {
		return errors.New("machine-init must be the first process of a PID namespace; package machine starts it")
	}
	spec, err := loadSpec(specFile)
	if err != nil {
		return err
	}
	log = log.With("component", "machine-init", "machine", spec.Name)
	// Opened now: the host's path is hidden once the machine's own disk is mounted.
	disk, err := os.OpenRoot(spec.Disk)
	if err != nil {
		return err
	}
	defer disk.Close()
	if err := joinCgroup(spec.Cgroup); err != nil {
		return err
	}
	if err := furnish(spec); err != nil {
		return err
	}
	if err := disk.WriteFile(filepath.Base(readyFile(spec.Disk)), nil, 0o644); err != nil {
		return err
	}
	return supervise(spec.Services, log)
}

// furnish makes the machine's world out of the host's.
func furnish(spec Spec) error {
	steps := []struct {
		what string
		do   func(Spec) error
	}{
		{"set the host name", func(s Spec) error { return unix.Sethostname([]byte(s.Name)) }},
		{"detach from the host's mounts", func(Spec) error {
			return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}},
		{"let go of other namespaces", releaseNamespaces},
		{"mount /proc", func(Spec) error { return unix.Mount("proc", "/proc", "proc", 0, "") }},
		{"make a new /run", mountRun},
		{"fill /etc", fillEtc},
		{"mount the disk", mountDisk},
		{"write files", writeFiles},
		{"mask kernel settings", maskSettings},
		{"change kernel settings", setSysctls},
		// hostPath volumes with mountPropagation need the node's root shared.
		{"share mounts", func(Spec) error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") }},
	}
	for _, s := range steps {
		if err := s.do(spec); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// releaseNamespaces unmounts the pins of namespaces that came along with the
// host's mounts: held here, the network of a machine that was rebooted or
// removed would live on, with its interfaces and rules, as long as this one.
func releaseNamespaces(Spec) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "nsfs" {
			if err := unix.Unmount(f[1], unix.MNT_DETACH); err != nil {
				return fmt.Errorf("%s: %w", f[1], err)
			}
		}
	}
	return nil
}

// mountRun gives the machine an empty /run, as after a boot, with the programs
// in it. It is built aside first, because the programs may lie in a directory
// that the new mounts hide.
func mountRun(s Spec) error {
	bin, err := os.Open(s.Bin)
	if err != nil {
		return err
	}
	defer bin.Close()
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	for _, d := range []string{BinDir, "/run/lock", "/run/netns"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", bin.Fd()), BinDir, "", unix.MS_BIND|unix.MS_REC, "")
}

// etcFiles is what programs of the host need of its /etc inside a machine.
var etcFiles = []string{
	"passwd", "group", "nsswitch.conf", "protocols", "services", "localtime",
	"os-release", "debian_version", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "ssl/certs/ca-certificates.crt",
}

func fillEtc(s Spec) error {
	for _, name := range etcFiles {
		from, to := filepath.Join("/etc", name), filepath.Join(s.Disk, "etc", name)
		if err := copyTree(from, to); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	own := map[string]string{
		"hostname":    s.Name + "\n",
		"hosts":       "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 " + s.Name + "\n",
		"resolv.conf": "",
		"machine-id":  machineID(s.Name) + "\n",
	}
	for name, content := range own {
		if err := os.WriteFile(filepath.Join(s.Disk, "etc", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func mountDisk(s Spec) error {
	// All are opened before the first is mounted: the disk itself usually lies
	// in a directory that one of these mounts hides.
	dirs := make([]*os.File, len(privateDirs))
	for i, d := range privateDirs {
		dir, err := os.Open(filepath.Join(s.Disk, d.disk))
		if err != nil {
			return err
		}
		defer dir.Close()
		dirs[i] = dir
	}
	for i, d := range privateDirs {
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", dirs[i].Fd()), d.at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", d.at, err)
		}
	}
	return nil
}

func writeFiles(s Spec) error {
	for path, f := range s.Files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := f.Mode
		if mode == 0 {
			mode = 0o644
		}
		if err := os.WriteFile(path, []byte(f.Content), mode); err != nil {
			return err
		}
	}
	return nil
}

func maskSettings(s Spec) error {
	for name, content := range s.Masks {
		file := filepath.Join("/run/machine/sys", strings.ReplaceAll(name, "/", "."))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(content+"\n"), 0o644); err != nil {
			return err
		}
		target := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(target); err != nil {
			continue // this kernel has no such setting
		}
		if err := unix.Mount(file, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
	}
	return nil
}

func setSysctls(s Spec) error {
	for name, value := range s.Sysctls {
		path := filepath.Join("/proc/sys", name)
		if err := os.WriteFile(path, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

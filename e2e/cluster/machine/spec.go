package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Spec describes one machine. It is written to disk as JSON for the init to read.
type Spec struct {
	// Name is the host name. Required.
	Name string `json:"name"`
	// Netns is the path of a pinned network namespace. Required.
	Netns string `json:"netns"`
	// Cgroup is the machine's cgroup, relative to the cgroup root. Required.
	Cgroup string `json:"cgroup"`
	// Disk is the directory that persists over reboots; its subdirectories are
	// mounted over those of the host (see privateDirs). Required.
	Disk string `json:"disk"`
	// Bin is a directory of programs, visible to the machine as BinDir. Required.
	Bin string `json:"bin"`
	// Files are written into the machine before its services start, path to content.
	Files map[string]File `json:"files"`
	// Sysctls are set in the machine's own namespaces, for example net/ipv4/ip_forward.
	Sysctls map[string]string `json:"sysctls"`
	// Masks are kernel settings (below /proc/sys) that belong to the whole host
	// and that a service would change: the machine sees a plain file with this
	// content instead, so the host keeps its own value.
	Masks map[string]string `json:"masks"`
	// Services are started in order and restarted when they end.
	Services []Service `json:"services"`
}

// File is the content and permission of one file.
type File struct {
	Content string      `json:"content"`
	Mode    os.FileMode `json:"mode"` // zero means 0644
}

// Service is one long-running program of a machine.
type Service struct {
	// Name names the log file, /var/log/NAME.log.
	Name string `json:"name"`
	// Program is the file to run, in BinDir. Empty means it is named as Args[0].
	Program string `json:"program"`
	// Args is the command line, with the name that the program is called by.
	Args []string `json:"args"`
	// Env is added to the machine's environment.
	Env []string `json:"env"`
	// Await must be there before this service starts for the first time: a path
	// (usually a socket of an earlier service), or a TCP listener ("tcp:" and
	// its address). Empty means it starts at once.
	Await string `json:"await"`
}

// Where things are inside a machine.
const (
	// BinDir holds the programs of Spec.Bin.
	BinDir = "/run/machine/bin"
	// LogDir holds one log per service; on the host it is Disk/log.
	LogDir = "/var/log"
)

// privateDirs maps a subdirectory of Disk to the place where the machine sees it.
// Whole directories, not single ones below, so that anything a DaemonSet mounts
// by hostPath is the machine's own and nothing has to be created on the host.
var privateDirs = []struct{ disk, at string }{
	{"etc", "/etc"},
	{"opt", "/opt"},
	{"log", "/var/log"},
	{"lib", "/var/lib"},
}

// HostPath is where the host finds a file that the machine sees at path, for
// paths on the machine's disk.
func (s Spec) HostPath(path string) (string, bool) {
	for _, d := range privateDirs {
		if rel, err := filepath.Rel(d.at, path); err == nil && filepath.IsLocal(rel) {
			return filepath.Join(s.Disk, d.disk, rel), true
		}
	}
	return "", false
}

// Validate says what is missing.
func (s Spec) Validate() error {
	for name, value := range map[string]string{
		"name": s.Name, "netns": s.Netns, "cgroup": s.Cgroup, "disk": s.Disk, "bin": s.Bin,
	} {
		if value == "" {
			return fmt.Errorf("machine spec: %s is empty", name)
		}
	}
	for _, svc := range s.Services {
		if svc.Name == "" || len(svc.Args) == 0 {
			return errors.New("machine spec: a service needs a name and a command")
		}
	}
	return nil
}

func specPath(disk string) string { return filepath.Join(disk, "machine.json") }

func (s Spec) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(specPath(s.Disk), data, 0o600)
}

func loadSpec(path string) (Spec, error) {
	var s Spec
	data, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read machine spec %s: %w", path, err)
	}
	return s, s.Validate()
}

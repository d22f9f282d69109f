package linux

import (
	"fmt"
	"os"
	"strings"
)

// sysctlPath turns "net.ipv4.tcp_migrate_req" into its file. Interface names
// with dots are written with slashes, as sysctl(8) wants them.
func sysctlPath(name string) string {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	return "/proc/sys/" + name
}

// ReadSysctl reads a setting of the current namespace; /proc/sys/net is per
// network namespace, so call it inside NetNS.Do for a pod's.
func ReadSysctl(name string) (string, error) {
	b, err := os.ReadFile(sysctlPath(name))
	if err != nil {
		return "", fmt.Errorf("reading sysctl %s: %w", name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// WriteSysctl writes a setting of the current namespace, unless it already has
// that value: on a read-only /proc/sys a setting that is right is no error.
func WriteSysctl(name, value string) error {
	if now, err := ReadSysctl(name); err == nil && now == value {
		return nil
	}
	if err := os.WriteFile(sysctlPath(name), []byte(value), 0o644); err != nil {
		return fmt.Errorf("writing sysctl %s: %w", name, err)
	}
	return nil
}

// HasIPv6 says whether the current namespace can use IPv6 at all: whether its
// loopback has it.
func HasIPv6() bool {
	v, err := ReadSysctl("net.ipv6.conf.lo.disable_ipv6")
	return err == nil && v == "0"
}

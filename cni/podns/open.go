package podns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// Holds reports whether one of the addresses is on an interface of ns.
func Holds(ns *linux.NetNS, ips []netip.Addr) bool {
	own, err := rules.Addresses(ns)
	return err == nil && slices.ContainsFunc(ips, func(ip netip.Addr) bool { return own[ip.Unmap()] })
}

// Open opens the namespace that the container runtime made at path, which is a
// path on the node: it is tried as it is, as where the node's /var/run/netns is
// mounted, and then by way of the node's first process.
func Open(path string, ips []netip.Addr) (*linux.NetNS, error) {
	ns, err := linux.OpenNetNS(path)
	if err != nil {
		var other error
		if ns, other = linux.OpenNetNS("/proc/1/root" + path); other != nil {
			return nil, errors.Join(err, other)
		}
	}
	if !Holds(ns, ips) {
		return nil, errors.Join(fmt.Errorf("network namespace %s has none of the pod's addresses %v", path, ips), ns.Close())
	}
	return ns, nil
}

// Free is an error if somebody else lives in ns: the node itself, or a process
// that is in the cgroup of another pod than w, whose sandbox may be among its
// containers. It is how a namespace that the plugin names is known to be that
// of the pod it names.
func Free(proc string, ns *linux.NetNS, w Wanted) error {
	pids, err := processes(proc)
	if err != nil {
		return err
	}
	owners := index([]Wanted{w})
	for _, pid := range pids {
		if id, err := identity(filepath.Join(proc, pid, "ns", "net")); err != nil || id != ns.ID() {
			continue // processes come and go
		}
		if pid == "1" {
			return errors.New("the network namespace is the node's own")
		}
		cgroups, err := os.ReadFile(filepath.Join(proc, pid, "cgroup"))
		if err == nil && names.Match(cgroups) && owner(string(cgroups), owners) != w.UID {
			return fmt.Errorf("process %s of another pod or container lives in the network namespace (%s)", pid, strings.TrimSpace(string(cgroups)))
		}
	}
	return nil
}

// All opens every network namespace that a process of the node is in, except
// the node's own; the caller closes them. It is for removing what was left.
func All(proc string) ([]*linux.NetNS, error) {
	node, err := identity(proc + "/1/ns/net")
	if err != nil {
		return nil, fmt.Errorf("reading the node's network namespace: %w", err)
	}
	pids, err := processes(proc)
	if err != nil {
		return nil, err
	}
	seen := map[linux.NetNSID]bool{node: true}
	var all []*linux.NetNS
	for _, pid := range pids {
		path := proc + "/" + pid + "/ns/net"
		id, err := identity(path)
		if err != nil || seen[id] {
			continue
		}
		seen[id] = true
		if ns, err := linux.OpenNetNS(path); err == nil {
			all = append(all, ns)
		}
	}
	return all, nil
}

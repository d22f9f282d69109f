// Package podns owns finding the network namespaces of pods that run already:
// by the processes in them. A namespace is given to a pod only if a process
// there is in one of the pod's cgroups and the pod's address is on one of its
// interfaces, so that no pod is ever served under another's identity.
//
// It refuses to look outside /proc. It must see the node's processes (host PID
// namespace, CAP_SYS_PTRACE). cni/agent calls it.
package podns

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// Wanted is one pod that is looked for.
type Wanted struct {
	// UID is the pod's.
	UID string
	// Containers are its containers' ids as the runtime knows them. On nodes
	// without cgroups per pod only they lead to the pod.
	Containers []string
	// IPs are its addresses. A pod without any is not found.
	IPs []netip.Addr
}

// Scan finds the namespaces of wanted pods by UID; the caller closes them.
// proc is normally "/proc".
func Scan(proc string, wanted []Wanted) (map[string]*linux.NetNS, error) {
	processes, err := list(proc, wanted)
	if err != nil {
		return nil, err
	}
	owners := index(wanted)
	found := map[string]*linux.NetNS{}
	for _, w := range wanted {
		for _, p := range processes[w.UID] {
			if ns := p.open(proc, w, owners); ns != nil {
				found[w.UID] = ns
				break
			}
		}
	}
	return found, nil
}

// process is one process of a pod.
type process struct {
	pid   string
	ns    linux.NetNSID
	start uint64
}

// list gives each wanted pod's processes, one a namespace, the oldest first:
// what entered a pod later, such as a debugger from elsewhere, is younger.
func list(proc string, wanted []Wanted) (map[string][]process, error) {
	pids, err := processes(proc)
	if err != nil {
		return nil, err
	}
	node, err := identity(filepath.Join(proc, "1", "ns", "net"))
	if err != nil {
		return nil, fmt.Errorf("reading the node's network namespace: %w", err)
	}
	owners := index(wanted)
	found := map[string][]process{}
	for _, pid := range pids {
		uid, p, ok := inspect(proc, pid, owners)
		if ok && p.ns != node {
			found[uid] = insert(found[uid], p)
		}
	}
	return found, nil
}

func processes(proc string) (pids []string, err error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, e.Name())
		}
	}
	return pids, nil
}

// inspect reads one process. Processes come and go: any error is a no.
func inspect(proc, pid string, owners map[string]string) (uid string, p process, ok bool) {
	cgroups, err := os.ReadFile(filepath.Join(proc, pid, "cgroup"))
	if err != nil {
		return "", process{}, false
	}
	if uid = owner(string(cgroups), owners); uid == "" {
		return "", process{}, false
	}
	ns, err := identity(filepath.Join(proc, pid, "ns", "net"))
	if err != nil {
		return "", process{}, false
	}
	stat, err := os.ReadFile(filepath.Join(proc, pid, "stat"))
	if err != nil {
		return "", process{}, false
	}
	start, ok := startTime(string(stat))
	return uid, process{pid, ns, start}, ok
}

// index maps what can stand in a cgroup's path to pods.
func index(wanted []Wanted) map[string]string {
	owners := map[string]string{}
	for _, w := range wanted {
		owners[w.UID] = w.UID
		for _, c := range w.Containers {
			owners[c] = w.UID
		}
	}
	return owners
}

// names are pod UIDs and container ids inside a cgroup's path: the cgroupfs
// driver writes pod0123-…, systemd's kubepods-pod0123_….slice and
// cri-containerd-ID.scope. A static pod's UID has no dashes.
var names = regexp.MustCompile(`[0-9a-f]{64}|[0-9a-f]{8}([-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}`)

// owner finds whose cgroup file this is; "" if nobody's or of more than one,
// as a pod's that makes itself a cgroup with another's name.
func owner(cgroups string, owners map[string]string) string {
	uid := ""
	for _, name := range names.FindAllString(cgroups, -1) {
		o := owners[strings.ReplaceAll(name, "_", "-")]
		switch {
		case o == "" && len(name) == len("00000000-0000-0000-0000-000000000000"):
			return "" // a pod that is not looked for
		case o == "" || o == uid:
			continue
		case uid != "":
			return ""
		}
		uid = o
	}
	return uid
}

// startTime is field 22 of /proc/PID/stat; the name in field 2 may hold spaces
// and parentheses.
func startTime(stat string) (uint64, bool) {
	_, rest, ok := strings.Cut(stat[strings.LastIndex(stat, ")")+1:], " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(fields[19], 10, 64)
	return n, err == nil
}

// insert keeps all sorted by age, with one process a namespace.
func insert(all []process, p process) []process {
	i := slices.IndexFunc(all, func(q process) bool { return q.ns == p.ns })
	switch {
	case i < 0:
		all = append(all, p)
	case p.start < all[i].start:
		all[i] = p
	}
	slices.SortStableFunc(all, func(a, b process) int { return cmp.Compare(a.start, b.start) })
	return all
}

// open opens the process's namespace if it is still the one seen, holds an
// address of the pod, and was opened by way of the process that was seen: its
// number may have become another's meanwhile.
func (p process) open(proc string, w Wanted, owners map[string]string) *linux.NetNS {
	ns, err := linux.OpenNetNS(filepath.Join(proc, p.pid, "ns", "net"))
	if err != nil {
		return nil
	}
	uid, now, ok := inspect(proc, p.pid, owners)
	if !ok || uid != w.UID || now != p || ns.ID() != p.ns || !Holds(ns, w.IPs) {
		ns.Close()
		return nil
	}
	return ns
}

func identity(path string) (linux.NetNSID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return linux.NetNSID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return linux.NetNSID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

package preflight

import (
	"context"
	"fmt"
	"go/version"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func root() Finding {
	if os.Geteuid() != 0 {
		return fail("root", "a cluster is made of namespaces and mounts: run as root (sudo)")
	}
	return ok("root", "yes")
}

// minimumGo is the first Go that reads this repository's go.mod.
const minimumGo = "go1.26"

func goVersion(ctx context.Context) Finding {
	out, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return fail("go", "the go command is not in the PATH: install Go 1.26 or later from go.dev/dl")
	}
	have := strings.TrimSpace(string(out))
	if version.Compare(have, minimumGo) < 0 {
		return fail("go", "%s is too old: install Go 1.26 or later from go.dev/dl", have)
	}
	return ok("go", "%s", have)
}

// compiler is apart from the packages because gcc may be there and broken.
func compiler() Finding {
	if _, err := exec.LookPath("gcc"); err != nil {
		return warn("C compiler", "no gcc: tests run without the race detector fail to build; install gcc and libc6-dev")
	}
	return ok("C compiler", "gcc, for the race detector")
}

// Free disk space that a first build and a cluster need, and that a repeated one needs.
const (
	firstGiB = 20
	againGiB = 5
)

func disk(ctx context.Context, cfg Config) Finding {
	cache := ""
	if out, err := exec.CommandContext(ctx, "go", "env", "GOCACHE").Output(); err == nil {
		cache = strings.TrimSpace(string(out))
	}
	need := uint64(firstGiB)
	if _, err := os.Stat(filepath.Join(cfg.Dir, "build", "bin", "kube")); err == nil {
		need = againGiB
	}
	found := Finding{What: "disk space"}
	for _, dir := range []string{cfg.Dir, cache, "/var/lib"} {
		free, err := freeGiB(dir)
		switch {
		case err != nil:
			continue
		case free < need:
			return fail("disk space", "%s has %d GiB free, %d are needed: free some, or move it to a larger disk", dir, free, need)
		}
		found.Found = fmt.Sprintf("%d GiB free, %d needed", free, need)
	}
	return found
}

// freeGiB is the space of the file system that dir is on, or will be.
func freeGiB(dir string) (uint64, error) {
	if dir == "" {
		return 0, os.ErrNotExist
	}
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return st.Bavail * uint64(st.Bsize) >> 30, nil
		}
		if err != unix.ENOENT || dir == "/" {
			return 0, err
		}
		dir = filepath.Dir(dir)
	}
}

func openFiles() Finding {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return warn("open files", "the limit is unknown: %v", err)
	}
	if lim.Max < 4096 {
		return fail("open files", "the hard limit is %d, at least 4096 are needed: raise it in /etc/security/limits.conf", lim.Max)
	}
	return ok("open files", "hard limit %d", lim.Max)
}

func inotify() Finding {
	n, err := readInt("/proc/sys/fs/inotify/max_user_instances")
	if err != nil {
		return warn("inotify instances", "the limit is unknown: %v", err)
	}
	if n < 1024 {
		return ok("inotify instances", "limit %d; it is raised while a cluster runs", n)
	}
	return ok("inotify instances", "limit %d", n)
}

func cgroups() Finding {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
		return fail("cgroups", "/sys/fs/cgroup is not there: mount cgroup2 on it")
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return v2Controllers()
	}
	var absent []string
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer"} {
		if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", c, "cgroup.procs")); err != nil {
			absent = append(absent, c)
		}
	}
	if len(absent) > 0 {
		return fail("cgroups", "version 1 without %s: mount them below /sys/fs/cgroup", strings.Join(absent, ", "))
	}
	return ok("cgroups", "version 1")
}

func v2Controllers() Finding {
	data, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return fail("cgroups", "version 2, but its controllers are unreadable: %v", err)
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !strings.Contains(" "+string(data)+" ", c) {
			return fail("cgroups", "version 2 without the %s controller: in a container, run it with its own cgroup namespace and privileged", c)
		}
	}
	return ok("cgroups", "version 2")
}

// namespaces tries what a machine of a cluster is made of.
func namespaces() Finding {
	if os.Geteuid() != 0 {
		return warn("namespaces", "can only be tried as root")
	}
	cmd := exec.Command("true")
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if err := cmd.Run(); err != nil {
		return fail("namespaces", "the kernel or a container refuses new namespaces (%v): run on a machine, or in a privileged container", err)
	}
	return ok("namespaces", "can be made")
}

// kernel looks for what is not in every kernel.
func kernel() Finding {
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return warn("kernel", "%v", err)
	}
	if !strings.Contains(string(data), "overlay") && exec.Command("modprobe", "overlay").Run() != nil {
		return warn("kernel", "no overlay file system: images are copied for every container, which is slow")
	}
	if err := exec.Command("nft", "list", "tables").Run(); err != nil {
		return fail("kernel", "nftables does not work (`nft list tables`: %v): a kernel with CONFIG_NF_TABLES is needed", err)
	}
	return ok("kernel", "nftables and overlay")
}

// bridgeFilter explains why another program's firewall does not matter.
func bridgeFilter() Finding {
	n, err := readInt("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err == nil && n != 0 {
		return ok("firewall", "br_netfilter is on; the cluster's bridge is in a namespace of its own, out of its reach")
	}
	return ok("firewall", "the cluster's bridge is in a namespace of its own")
}

func ipv6() Finding {
	n, err := readInt("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	if err != nil {
		return warn("ipv6", "this kernel has none: only IPv4 clusters work")
	}
	if n != 0 {
		return warn("ipv6", "disabled on this machine (net.ipv6.conf.all.disable_ipv6): the host cannot reach IPv6 clusters")
	}
	return ok("ipv6", "yes")
}

func readInt(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

package podns

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/internal/linux"
)

const (
	uidA = "11111111-2222-3333-4444-555555555555"
	uidB = "aaaaaaaa-2222-3333-4444-555555555555"
)

var containerA = strings.Repeat("c", 63) + "a"

func TestOwner(t *testing.T) {
	owners := index([]Wanted{{UID: uidA, Containers: []string{containerA}}, {UID: uidB}, {UID: strings.Repeat("d", 32)}})
	for _, c := range []struct{ what, cgroups, want string }{
		{"cgroupfs, v1", "4:cpu:/kubepods/burstable/pod" + uidA + "/" + strings.Repeat("f", 64) + "\n3:memory:/kubepods/burstable/pod" + uidA + "/x\n", uidA},
		{"systemd, v2", "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + strings.ReplaceAll(uidA, "-", "_") + ".slice/cri-containerd-" + strings.Repeat("e", 64) + ".scope\n", uidA},
		{"seen from another cgroup namespace", "0::/../../pod" + uidB + "/" + strings.Repeat("e", 64) + "\n", uidB},
		{"no cgroups for pods: the container leads to it", "0::/k8s.io/" + containerA + "\n", uidA},
		{"a static pod", "0::/kubepods/pod" + strings.Repeat("d", 32) + "/x\n", strings.Repeat("d", 32)},
		{"another pod", "0::/kubepods/pod99999999-2222-3333-4444-555555555555/x\n", ""},
		{"no pod", "0::/system.slice/containerd.service\n", ""},
		{"a pod that makes itself a cgroup of another's name", "0::/kubepods/pod99999999-2222-3333-4444-555555555555/x/pod" + uidA + "\n", ""},
		{"two pods at once are nobody", "2:cpu:/pod" + uidA + "\n1:memory:/pod" + uidB + "\n", ""},
	} {
		if got := owner(c.cgroups, owners); got != c.want {
			t.Errorf("%s: owner %q, want %q", c.what, got, c.want)
		}
	}
}

func TestStartTime(t *testing.T) {
	if n, ok := startTime("7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1"); !ok || n != 4242 {
		t.Errorf("start time %d, %v, want 4242", n, ok)
	}
	if _, ok := startTime("7 (short) S"); ok {
		t.Error("a cut line has no start time")
	}
}

func TestScan(t *testing.T) {
	node := netnstest.Node(t)
	a, b := netnstest.NewPod(t, node, 1), netnstest.NewPod(t, node, 2)
	proc := netnstest.NewProc(t, node)
	proc.Add(t, 10, "0::/kubepods/pod"+uidA+"/x", a.NS, 50)
	proc.Add(t, 11, "0::/kubepods/pod"+uidA+"/x", b.NS, 60) // looks into b from a
	proc.Add(t, 20, "0::/kubepods/pod"+uidB+"/x", a.NS, 5)  // looks into a from b, and is old
	proc.Add(t, 21, "0::/kubepods/pod"+uidB+"/x", b.NS, 70)
	proc.Add(t, 30, "0::/kubepods/pod"+uidB+"/x", node, 1) // in the node's namespace

	for _, c := range []struct {
		what string
		pod  Wanted
		want *linux.NetNS
	}{
		{"its process, its address", Wanted{UID: uidA, IPs: []netip.Addr{a.V4}}, a.NS},
		{"an older process elsewhere does not mislead", Wanted{UID: uidB, IPs: []netip.Addr{b.V6}}, b.NS},
		{"no address, no namespace", Wanted{UID: uidA}, nil},
		{"an address that nobody has", Wanted{UID: uidA, IPs: []netip.Addr{netip.MustParseAddr("10.88.0.99")}}, nil},
		{"a pod without processes", Wanted{UID: "99999999-2222-3333-4444-555555555555", IPs: []netip.Addr{a.V4}}, nil},
	} {
		found, err := Scan(string(proc), []Wanted{c.pod})
		if err != nil {
			t.Fatal(err)
		}
		got := found[c.pod.UID]
		switch {
		case (got == nil) != (c.want == nil):
			t.Errorf("%s: found %v, want %v", c.what, got, c.want)
		case got != nil && got.ID() != c.want.ID():
			t.Errorf("%s: found another namespace", c.what)
		}
		if got != nil {
			got.Close()
		}
	}

	all, err := All(string(proc))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Errorf("%d namespaces beside the node's, want 2", len(all))
	}
	for _, ns := range all {
		ns.Close()
	}
}

func TestOpenBindsNamespaceAndAddress(t *testing.T) {
	node := netnstest.Node(t)
	a := netnstest.NewPod(t, node, 1)
	path := netnstest.Path(a.NS)
	ns, err := Open(path, []netip.Addr{a.V4})
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	if ns, err := Open(path, []netip.Addr{netip.MustParseAddr("10.88.0.99")}); err == nil {
		ns.Close()
		t.Error("opened a namespace that does not have the pod's address")
	}
	if ns, err := Open(filepath.Join(t.TempDir(), "none"), []netip.Addr{a.V4}); err == nil {
		ns.Close()
		t.Error("opened what is not there")
	}
}

// TestANumberThatBecameAnotherProcess: between the look at a process and the
// opening of its namespace the process has ended, and its number is another's.
func TestANumberThatBecameAnotherProcess(t *testing.T) {
	node := netnstest.Node(t)
	a, b := netnstest.NewPod(t, node, 1), netnstest.NewPod(t, node, 2)
	for _, c := range []struct {
		what   string
		cgroup string
		ns     *linux.NetNS
		start  int
		found  bool
	}{
		{"the same still", "0::/kubepods/pod" + uidA + "/x", a.NS, 50, true},
		{"a younger one of the same pod", "0::/kubepods/pod" + uidA + "/x", a.NS, 51, false},
		{"one of another pod that looks into this one", "0::/kubepods/pod" + uidB + "/x", a.NS, 50, false},
		{"one of the pod that has gone elsewhere", "0::/kubepods/pod" + uidA + "/x", b.NS, 50, false},
	} {
		proc := netnstest.NewProc(t, node)
		proc.Add(t, 10, "0::/kubepods/pod"+uidA+"/x", a.NS, 50)
		w := Wanted{UID: uidA, IPs: []netip.Addr{a.V4}}
		seen, err := list(string(proc), []Wanted{w})
		if err != nil || len(seen[uidA]) != 1 {
			t.Fatalf("%s: seen %v (%v)", c.what, seen, err)
		}
		proc.Remove(t, 10)
		proc.Add(t, 10, c.cgroup, c.ns, c.start)
		ns := seen[uidA][0].open(string(proc), w, index([]Wanted{w}))
		if (ns != nil) != c.found {
			t.Errorf("%s: opened %v, want %v", c.what, ns != nil, c.found)
		}
		if ns != nil {
			ns.Close()
		}
	}
}

func TestWhoLivesInANamespace(t *testing.T) {
	node := netnstest.Node(t)
	a := netnstest.NewPod(t, node, 1)
	sandbox := strings.Repeat("5", 64)
	for _, c := range []struct {
		what, cgroup string
		ns           *linux.NetNS
		want         string
	}{
		{"nobody", "", nil, ""},
		{"a process of the pod", "0::/kubepods/pod" + uidA + "/" + sandbox, a.NS, ""},
		{"its sandbox, where cgroups name no pods", "0::/k8s.io/" + sandbox, a.NS, ""},
		{"a program of the node that looks in", "0::/system.slice/containerd.service", a.NS, ""},
		{"another pod", "0::/kubepods/pod" + uidB + "/x", a.NS, "process 10 of another pod"},
		{"another sandbox", "0::/k8s.io/" + strings.Repeat("6", 64), a.NS, "process 10 of another pod or container"},
	} {
		proc := netnstest.NewProc(t, node)
		if c.ns != nil {
			proc.Add(t, 10, c.cgroup, c.ns, 50)
		}
		err := Free(string(proc), a.NS, Wanted{UID: uidA, Containers: []string{sandbox}})
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
	proc := netnstest.NewProc(t, node)
	if err := Free(string(proc), node, Wanted{UID: uidA}); err == nil || !strings.Contains(err.Error(), "node's own") {
		t.Errorf("the node's own: %v", err)
	}
}

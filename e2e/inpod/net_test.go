package inpod_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
)

// node is a node's network: its pods hang on it, and it on the other nodes.
type node struct {
	name string
	ns   *linux.NetNS
	n    int // pods are 10.<n>.0.x and fd00:<n>::x
	pods int
	kept string // where its ztunnels keep what they know; empty is nowhere
	// resolv names the resolvers of its ztunnels; empty is this machine's file.
	resolv string
	*agent
}

// podNet is a pod's network namespace and addresses.
type podNet struct {
	ns     *linux.NetNS
	v4, v6 netip.Addr
}

// veth joins two namespaces.
func veth(t *testing.T, a *linux.NetNS, aName string, b *linux.NetNS, bName string) {
	t.Helper()
	err := a.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: aName}, PeerName: bName, PeerNamespace: netlink.NsFd(int(b.File().Fd())),
		})
	})
	if err != nil {
		t.Fatalf("joining %s and %s: %v", aName, bName, err)
	}
}

// ip runs `ip` inside ns for each line.
func ip(t *testing.T, ns *linux.NetNS, lines ...string) {
	t.Helper()
	batch := ""
	for _, l := range lines {
		batch += l + "\n"
	}
	linuxtest.Run(t, ns, "ip", "-batch", "-", batch)
}

func sysctl(t *testing.T, ns *linux.NetNS, name, value string) {
	t.Helper()
	if err := ns.Do(func() error { return linux.WriteSysctl(name, value) }); err != nil {
		t.Fatal(err)
	}
}

func newNodeNet(t *testing.T, name string, n int) *node {
	t.Helper()
	ns := linuxtest.NewNetNS(t)
	sysctl(t, ns, "net.ipv4.ip_forward", "1")
	sysctl(t, ns, "net.ipv6.conf.all.forwarding", "1")
	return &node{name: name, ns: ns, n: n}
}

// wire joins two nodes and routes between their pods.
func wire(t *testing.T, a, b *node) {
	t.Helper()
	veth(t, a.ns, "link0", b.ns, "link0")
	for _, x := range []struct{ from, to *node }{{a, b}, {b, a}} {
		ip(t, x.from.ns,
			fmt.Sprintf("addr add 172.30.0.%d/24 dev link0", x.from.n),
			fmt.Sprintf("addr add fd00:aaaa::%d/64 dev link0 nodad", x.from.n),
			"link set link0 up")
	}
	for _, x := range []struct{ from, to *node }{{a, b}, {b, a}} {
		ip(t, x.from.ns,
			fmt.Sprintf("route add 10.%d.0.0/16 via 172.30.0.%d", x.to.n, x.to.n),
			fmt.Sprintf("route add fd00:%d::/32 via fd00:aaaa::%d", x.to.n, x.to.n))
	}
}

// newPodNet makes a pod as the ptp plugin does: one cable, routed.
func (n *node) newPodNet(t *testing.T) podNet {
	t.Helper()
	n.pods++
	p := podNet{
		ns: linuxtest.NewNetNS(t),
		v4: netip.MustParseAddr(fmt.Sprintf("10.%d.0.%d", n.n, n.pods+1)),
		v6: netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", n.n, n.pods+1)),
	}
	cable := fmt.Sprintf("pod%d", n.pods)
	veth(t, p.ns, "eth0", n.ns, cable)
	ip(t, n.ns,
		"addr add 169.254.1.1/32 dev "+cable, "addr add fe80::1/64 dev "+cable+" nodad", "link set "+cable+" up",
		fmt.Sprintf("route add %s/32 dev %s", p.v4, cable), fmt.Sprintf("route add %s/128 dev %s", p.v6, cable))
	ip(t, p.ns,
		fmt.Sprintf("addr add %s/32 dev eth0", p.v4), fmt.Sprintf("addr add %s/128 dev eth0 nodad", p.v6), "link set eth0 up",
		"route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1 dev eth0", "route add default via fe80::1 dev eth0")
	return p
}

// capture puts the pod's rules in place, as the CNI agent does.
func (p podNet) capture(t *testing.T) {
	t.Helper()
	if err := rules.Apply(p.ns, rules.Spec{DNS: true}); err != nil {
		t.Fatal(err)
	}
}

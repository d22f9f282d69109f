// Package netnstest owns the small networks that the cni room's tests run in:
// network namespaces without names, so that nothing is left behind, joined by
// veth pairs the way the ptp plugin joins pods to their node.
//
// It refuses anything outside the namespaces it makes. Tests that need it skip
// themselves without root.
package netnstest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// New makes a namespace with lo up; it ends with the test.
func New(t testing.TB) *linux.NetNS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	type result struct {
		ns  *linux.NetNS
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: err}
			return
		}
		ns, err := linux.OpenNetNS(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		made <- result{ns, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatalf("making a network namespace: %v", r.err)
	}
	t.Cleanup(func() { r.ns.Close() })
	Do(t, r.ns, func() error {
		// Duplicate address detection would cost each test two seconds.
		if err := linux.WriteSysctl("net.ipv6.conf.default.accept_dad", "0"); err != nil {
			return err
		}
		if err := linux.WriteSysctl("net.ipv6.conf.all.accept_dad", "0"); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return r.ns
}

// Do runs f in ns and fails the test with its error.
func Do(t testing.TB, ns *linux.NetNS, f func() error) {
	t.Helper()
	if err := ns.Do(f); err != nil {
		t.Fatal(err)
	}
}

// Node makes a node's namespace: one that forwards.
func Node(t testing.TB) *linux.NetNS {
	t.Helper()
	ns := New(t)
	Do(t, ns, func() error {
		if err := linux.WriteSysctl("net.ipv4.ip_forward", "1"); err != nil {
			return err
		}
		return linux.WriteSysctl("net.ipv6.conf.all.forwarding", "1")
	})
	return ns
}

// The gateways that every pod has: the node's end of its veth.
var (
	gateway4 = netip.MustParseAddr("10.88.0.1")
	gateway6 = netip.MustParseAddr("fd00:88::1")
)

// Pod is a pod's namespace and addresses.
type Pod struct {
	NS     *linux.NetNS
	V4, V6 netip.Addr
}

// NewPod makes pod number i of the node.
func NewPod(t testing.TB, node *linux.NetNS, i int) Pod {
	t.Helper()
	p := Pod{
		NS: New(t),
		V4: netip.AddrFrom4([4]byte{10, 88, 0, byte(10 + i)}),
		V6: netip.MustParseAddr(fmt.Sprintf("fd00:88::%d", 10+i)),
	}
	host := fmt.Sprintf("veth%d", i)
	Do(t, node, func() error {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: host},
			PeerName:  "eth0", PeerNamespace: netlink.NsFd(int(p.NS.File().Fd())),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("adding veth: %w", err)
		}
		return setUp(host, gateway4, gateway6, []netip.Addr{p.V4, p.V6}, nil)
	})
	Do(t, p.NS, func() error {
		return setUp("eth0", p.V4, p.V6, []netip.Addr{gateway4, gateway6}, []netip.Addr{gateway4, gateway6})
	})
	return p
}

// setUp gives a link its addresses, the neighbours it reaches and default
// routes.
func setUp(name string, v4, v6 netip.Addr, neighbours, gateways []netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, ip := range []netip.Addr{v4, v6} {
		a := &netlink.Addr{IPNet: host(ip), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("adding address %s: %w", ip, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for _, ip := range neighbours {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: host(ip), Scope: netlink.SCOPE_LINK}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("adding route to %s: %w", ip, err)
		}
	}
	for _, ip := range gateways {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: ip.AsSlice(), Dst: everything(ip)}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("adding default route by %s: %w", ip, err)
		}
	}
	return nil
}

func host(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
}

func everything(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, ip.BitLen()/8), Mask: net.CIDRMask(0, ip.BitLen())}
}

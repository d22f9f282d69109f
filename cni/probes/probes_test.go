package probes_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/probes"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

func TestOnlyTheKubeletsProbesGoAroundTheMesh(t *testing.T) {
	node := netnstest.Node(t)
	pod, peer := netnstest.NewPod(t, node, 1), netnstest.NewPod(t, node, 2)
	for _, port := range []uint16{8080, 8081} {
		netnstest.Serve(t, pod.NS, port, "pod", linux.ListenOptions{})
	}
	netnstest.Serve(t, peer.NS, 8080, "peer", linux.ListenOptions{})
	netnstest.Proxy(t, pod.NS)
	if err := rules.Apply(pod.NS, rules.Spec{}); err != nil {
		t.Fatal(err)
	}
	spec := probes.Spec{Pairs: []netip.AddrPort{
		netip.AddrPortFrom(pod.V6, 8080), netip.AddrPortFrom(pod.V4, 8080), netip.AddrPortFrom(pod.V4, 8080),
	}}
	apply(t, node, spec)

	gateway := map[bool]string{false: "10.88.0.1", true: "fd00:88::1"}
	for _, f := range []struct{ pod, peer, probe netip.Addr }{
		{pod.V4, peer.V4, rules.ProbeSourceV4}, {pod.V6, peer.V6, rules.ProbeSourceV6},
	} {
		for _, c := range []struct {
			what string
			got  string
			want string
		}{
			{"a probe", ask(t, node, 0, f.pod, 8080), fmt.Sprintf("pod %s: hi", f.probe)},
			{"root on the node, a port not probed", ask(t, node, 0, f.pod, 8081), fmt.Sprintf("by 15006 pod %s: hi", gateway[f.pod.Is6()])},
			{"another user on the node, the probed port", ask(t, node, 65534, f.pod, 8080), fmt.Sprintf("by 15006 pod %s: hi", gateway[f.pod.Is6()])},
			{"root on the node, a pod not enrolled", ask(t, node, 0, f.peer, 8080), fmt.Sprintf("peer %s: hi", gateway[f.pod.Is6()])},
			{"root in another pod, the probed port", ask(t, peer.NS, 0, f.pod, 8080), fmt.Sprintf("by 15006 pod %s: hi", f.peer)},
		} {
			if c.got != c.want {
				t.Errorf("%s (%s): answer %q, want %q", c.what, f.pod, c.got, c.want)
			}
		}
	}
}

// ask asks as another user: a socket's owner is the file-system uid of the
// thread that made it.
func ask(t *testing.T, ns *linux.NetNS, uid int, ip netip.Addr, port uint16) string {
	t.Helper()
	answer := make(chan string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.File().Fd()), unix.CLONE_NEWNET); err != nil {
			answer <- err.Error()
			return
		}
		unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
		answer <- netnstest.Ask(t, nil, netip.AddrPortFrom(ip, port), "hi")
	}()
	return <-answer
}

func apply(t *testing.T, node *linux.NetNS, s probes.Spec) {
	t.Helper()
	if err := probes.Apply(node, s); err != nil {
		t.Fatal(err)
	}
	if drift := check(t, node, s); len(drift) > 0 {
		t.Fatalf("applied rules differ from the kernel's: %q", drift)
	}
}

func check(t *testing.T, node *linux.NetNS, s probes.Spec) []string {
	t.Helper()
	drift, err := probes.Check(node, s)
	if err != nil {
		t.Fatal(err)
	}
	return drift
}

func TestEveryDamageIsNoticed(t *testing.T) {
	node := netnstest.New(t)
	pair, other := netip.MustParseAddrPort("10.1.2.3:80"), netip.MustParseAddrPort("[fd00::1]:81")
	spec := probes.Spec{Pairs: []netip.AddrPort{pair}}
	table := &nftables.Table{Name: probes.TableName, Family: nftables.TableFamilyINet}
	chain := &nftables.Chain{Name: "probes", Table: table}
	rule := func(i int) func(*nftables.Conn) error {
		return func(c *nftables.Conn) error {
			all, err := c.GetRules(table, chain)
			if err != nil {
				return err
			}
			return c.DelRule(all[i])
		}
	}
	set := func(f func(c *nftables.Conn, s *nftables.Set) error) func(*nftables.Conn) error {
		return func(c *nftables.Conn) error {
			s, err := c.GetSetByName(table, "istio-inpod-probes-v4")
			if err != nil {
				return err
			}
			return f(c, s)
		}
	}
	for _, d := range []struct {
		what string
		do   func(c *nftables.Conn) error
	}{
		{"the table deleted", func(c *nftables.Conn) error { c.DelTable(table); return nil }},
		{"the chain flushed", func(c *nftables.Conn) error { c.FlushChain(chain); return nil }},
		{"the IPv4 rule deleted", rule(0)},
		{"the IPv6 rule deleted", rule(1)},
		{"the set emptied", set(func(c *nftables.Conn, s *nftables.Set) error { c.FlushSet(s); return nil })},
		{"a pair added", set(func(c *nftables.Conn, s *nftables.Set) error {
			return c.SetAddElements(s, []nftables.SetElement{{Key: []byte{10, 1, 2, 4, 0, 80, 0, 0}}})
		})},
	} {
		apply(t, node, spec)
		netnstest.Do(t, node, func() error {
			c := &nftables.Conn{}
			if err := d.do(c); err != nil {
				return fmt.Errorf("%s: %w", d.what, err)
			}
			return c.Flush()
		})
		if drift := check(t, node, spec); len(drift) == 0 {
			t.Errorf("%s: not noticed", d.what)
		}
	}
	apply(t, node, spec)
	for what, wrong := range map[string]probes.Spec{
		"another uid":   {UID: 7, Pairs: spec.Pairs},
		"another pair":  {Pairs: []netip.AddrPort{other}},
		"one pair more": {Pairs: []netip.AddrPort{pair, other}},
		"no pair":       {},
	} {
		if drift := check(t, node, wrong); len(drift) == 0 {
			t.Errorf("%s: not noticed", what)
		}
	}
	if err := probes.Remove(node); err != nil {
		t.Fatal(err)
	}
	if err := probes.Remove(node); err != nil {
		t.Fatalf("removing what is gone: %v", err)
	}
}

package rules_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// world is a node with two pods: one gets rules and a toy ztunnel, both run a
// program on 8080; the other pod's is called "peer".
type world struct {
	node      *linux.NetNS
	pod, peer netnstest.Pod
}

func newWorld(t *testing.T) world {
	node := netnstest.Node(t)
	w := world{node, netnstest.NewPod(t, node, 1), netnstest.NewPod(t, node, 2)}
	netnstest.Serve(t, w.pod.NS, 8080, "pod", linux.ListenOptions{})
	netnstest.Serve(t, w.peer.NS, 8080, "peer", linux.ListenOptions{})
	netnstest.Proxy(t, w.pod.NS)
	return w
}

func apply(t *testing.T, ns *linux.NetNS, s rules.Spec) {
	t.Helper()
	if err := rules.Apply(ns, s); err != nil {
		t.Fatal(err)
	}
	if drift := check(t, ns, s); len(drift) > 0 {
		t.Fatalf("applied rules differ from the kernel's: %q", drift)
	}
}

func check(t *testing.T, ns *linux.NetNS, s rules.Spec) []string {
	t.Helper()
	drift, err := rules.Check(ns, s)
	if err != nil {
		t.Fatal(err)
	}
	return drift
}

func at(ip netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(ip, port) }

func TestCapture(t *testing.T) {
	w := newWorld(t)
	families := []struct {
		name      string
		pod, peer netip.Addr
		loopback  netip.Addr
		probe     netip.Addr
	}{
		{"IPv4", w.pod.V4, w.peer.V4, netip.MustParseAddr("127.0.0.1"), rules.ProbeSourceV4},
		{"IPv6", w.pod.V6, w.peer.V6, netip.IPv6Loopback(), rules.ProbeSourceV6},
	}
	for _, mode := range []struct {
		name              string
		spec              *rules.Spec
		inbound, outbound string
	}{
		{"without rules nothing is captured", nil, "", ""},
		{"both ways", &rules.Spec{}, "by 15006 ", "by 15001 "},
		{"inbound bypassed", &rules.Spec{BypassInbound: true}, "", "by 15001 "},
		{"draining captures nothing", &rules.Spec{Draining: true}, "", ""},
	} {
		if mode.spec != nil {
			apply(t, w.pod.NS, *mode.spec)
		}
		for _, f := range families {
			for _, c := range []struct {
				what string
				from *linux.NetNS
				to   netip.AddrPort
				want string
			}{
				{"outbound", w.pod.NS, at(f.peer, 8080), fmt.Sprintf("%speer %s: hi", mode.outbound, f.pod)},
				{"inbound, with the source preserved", w.peer.NS, at(f.pod, 8080), fmt.Sprintf("%spod %s: hi", mode.inbound, f.peer)},
				{"a pod calls its own address", w.pod.NS, at(f.pod, 8080), fmt.Sprintf("pod %s: hi", f.pod)},
				{"loopback", w.pod.NS, at(f.loopback, 8080), fmt.Sprintf("pod %s: hi", f.loopback)},
			} {
				if got := netnstest.Ask(t, c.from, c.to, "hi"); got != c.want {
					t.Errorf("%s, %s, %s: answer %q, want %q", mode.name, f.name, c.what, got, c.want)
				}
			}
		}
	}
}

func TestHBONEIsNotCaptured(t *testing.T) {
	w := newWorld(t)
	netnstest.Serve(t, w.pod.NS, 15008, "hbone", linux.ListenOptions{Mark: linux.Mark, Transparent: true})
	apply(t, w.pod.NS, rules.Spec{})
	want := fmt.Sprintf("hbone %s: hi", w.peer.V4)
	if got := netnstest.Ask(t, w.peer.NS, at(w.pod.V4, 15008), "hi"); got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
}

func TestWithoutZtunnelCapturedConnectionsAreRefused(t *testing.T) {
	node := netnstest.Node(t)
	pod, peer := netnstest.NewPod(t, node, 1), netnstest.NewPod(t, node, 2)
	netnstest.Serve(t, pod.NS, 8080, "pod", linux.ListenOptions{})
	netnstest.Serve(t, peer.NS, 8080, "peer", linux.ListenOptions{})
	apply(t, pod.NS, rules.Spec{})
	for _, c := range []struct {
		from *linux.NetNS
		to   netip.AddrPort
	}{{pod.NS, at(peer.V4, 8080)}, {peer.NS, at(pod.V4, 8080)}, {pod.NS, at(peer.V6, 8080)}, {peer.NS, at(pod.V6, 8080)}} {
		if got := netnstest.Ask(t, c.from, c.to, "hi"); got != "failed" {
			t.Errorf("to %s without ztunnel: %q, want a refusal", c.to, got)
		}
	}
}

// asks fails the test unless the connection still answers with want.
func asks(t *testing.T, when string, c *netnstest.Client, want string) {
	t.Helper()
	got, err := c.Ask("hi")
	if err != nil || got != want {
		t.Errorf("%s: answer %q (%v), want %q", when, got, err, want)
	}
}

func dial(t *testing.T, from *linux.NetNS, to netip.AddrPort) *netnstest.Client {
	t.Helper()
	c, err := netnstest.Dial(t, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOpenConnectionsOutliveEnrolmentAndRelease(t *testing.T) {
	w := newWorld(t)
	ns := w.pod.NS
	for _, f := range []struct{ pod, peer netip.Addr }{{w.pod.V4, w.peer.V4}, {w.pod.V6, w.peer.V6}} {
		out, in := dial(t, ns, at(f.peer, 8080)), dial(t, w.peer.NS, at(f.pod, 8080))
		plainOut, plainIn := fmt.Sprintf("peer %s: hi", f.pod), fmt.Sprintf("pod %s: hi", f.peer)
		asks(t, "before", out, plainOut)
		asks(t, "before", in, plainIn)

		apply(t, ns, rules.Spec{})
		asks(t, "opened before, after enrolment", out, plainOut)
		asks(t, "opened before, after enrolment", in, plainIn)

		capturedOut, capturedIn := dial(t, ns, at(f.peer, 8080)), dial(t, w.peer.NS, at(f.pod, 8080))
		asks(t, "captured", capturedOut, "by 15001 "+plainOut)
		asks(t, "captured", capturedIn, "by 15006 "+plainIn)
		if n := captured(t, ns); n == 0 {
			t.Error("captured connections are open but none is counted")
		}

		apply(t, ns, rules.Spec{})
		asks(t, "captured, rules applied again", capturedOut, "by 15001 "+plainOut)
		asks(t, "captured, rules applied again", capturedIn, "by 15006 "+plainIn)

		apply(t, ns, rules.Spec{Draining: true})
		asks(t, "captured, after release", capturedOut, "by 15001 "+plainOut)
		asks(t, "captured, after release", capturedIn, "by 15006 "+plainIn)
		fresh := dial(t, ns, at(f.peer, 8080))
		asks(t, "opened while draining", fresh, plainOut)

		capturedOut.Close()
		capturedIn.Close()
		within(t, "no captured connection", func() bool { return captured(t, ns) == 0 })
		if err := rules.Remove(ns); err != nil {
			t.Fatal(err)
		}
		asks(t, "opened while draining, after removal", fresh, plainOut)
		asks(t, "opened before all, after removal", out, plainOut)
		asks(t, "opened before all, after removal", in, plainIn)
	}
}

func captured(t *testing.T, ns *linux.NetNS) int {
	t.Helper()
	n, err := rules.Captured(ns)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRemoveLeavesNothing(t *testing.T) {
	ns := netnstest.New(t)
	before := everything(t, ns)
	for _, spec := range []rules.Spec{{}, {UDP: true}} {
		apply(t, ns, spec)
		if everything(t, ns) == before {
			t.Fatal("the test does not see the rules")
		}
		for range 2 {
			if err := rules.Remove(ns); err != nil {
				t.Fatal(err)
			}
		}
		if after := everything(t, ns); after != before {
			t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
		}
	}
}

func TestTune(t *testing.T) {
	ns := netnstest.New(t)
	if err := rules.Tune(ns); err != nil {
		t.Fatal(err)
	}
	netnstest.Do(t, ns, func() error {
		if v, err := linux.ReadSysctl("net.ipv4.tcp_migrate_req"); err != nil || v != "1" {
			return fmt.Errorf("tcp_migrate_req is %q (%v)", v, err)
		}
		return nil
	})
}

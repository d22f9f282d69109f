package members_test

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cni/members"
	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// names answers every datagram to an address with its name.
func names(t *testing.T, ns *linux.NetNS, at, name string, mark int) *net.UDPConn {
	t.Helper()
	c, err := linux.ListenUDP(t.Context(), ns, netip.MustParseAddrPort(at), linux.ListenOptions{Mark: mark})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		b := make([]byte, 64)
		for {
			_, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort([]byte(name), from)
		}
	})
	t.Cleanup(func() { c.Close(); serving.Wait() })
	return c
}

// answered is who answers a conversation of the pod with its name server.
func answered(c *net.UDPConn) string {
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write([]byte("?"))
	b := make([]byte, 64)
	n, err := c.Read(b)
	if err != nil {
		return "nobody"
	}
	return string(b[:n])
}

func TestDNSFollowsTheAnnotationAndWhoHoldsThePort(t *testing.T) {
	w := newWorld(t)
	names(t, w.peer.NS, netip.AddrPortFrom(w.peer.V4, 53).String(), "cluster", 0)
	zt := netnstest.NewZtunnel(t, w.socket, nil)
	defer zt.Leave()
	taken := names(t, w.pod.NS, "127.0.0.1:15053", "a program of the pod", 0)
	pod := w.thePod()
	pod.DNS = true
	if err := w.keeper.Enrol(pod, open(t, w.pod.NS)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "captured", func() bool {
		return w.keeper.Advance(t.Context(), uid) == nil && w.keeper.Phase(uid) == members.Captured
	})
	c, err := linux.DialUDP(t.Context(), w.pod.NS, netip.AddrPortFrom(w.peer.V4, 53), linux.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	step := func(what string, change func(), dns bool, want string, taken bool) {
		t.Helper()
		if change != nil {
			change()
		}
		pod.DNS = dns
		if err := w.keeper.Look(pod); err != nil {
			t.Fatal(err)
		}
		if got := answered(c); got != want || w.keeper.DNSTaken(uid) != taken {
			t.Errorf("%s: %s answers, taken %v; want %s, %v", what, got, w.keeper.DNSTaken(uid), want, taken)
		}
	}
	step("a program holds the port", nil, true, "cluster", true)
	step("ztunnel has it", func() {
		taken.Close()
		names(t, w.pod.NS, "127.0.0.1:15053", "ztunnel", linux.Mark)
	}, true, "ztunnel", false)
	step("the pod opts out", nil, false, "cluster", false)
	step("the pod opts in", nil, true, "ztunnel", false)
}

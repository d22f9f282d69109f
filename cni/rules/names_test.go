package rules_test

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.IPv6Loopback()
)

// answerer answers datagrams in ns by what it makes of them.
func answerer(t *testing.T, ns *linux.NetNS, addr netip.AddrPort, mark int, answer func(text string, from netip.AddrPort) string) *net.UDPConn {
	t.Helper()
	c, err := linux.ListenUDP(t.Context(), ns, addr, linux.ListenOptions{Mark: mark})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort([]byte(answer(string(buf[:n]), from)), from)
		}
	})
	t.Cleanup(func() { c.Close(); serving.Wait() })
	return c
}

// socket is a UDP socket in ns.
func socket(t *testing.T, ns *linux.NetNS, to netip.AddrPort, mark int) *net.UDPConn {
	t.Helper()
	c, err := linux.DialUDP(t.Context(), ns, to, linux.DialOptions{Mark: mark})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// query sends a text and gives the answer, or "nothing".
func query(c *net.UDPConn, text string) string {
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte(text)); err != nil {
		return "nothing"
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if err != nil {
		return "nothing"
	}
	return string(buf[:n])
}

// resolving is a world in which "peer" answers DNS, a program of the pod does
// so on loopback, and a toy of ztunnel's DNS proxy asks peer for what it gets.
func resolving(t *testing.T) world {
	t.Helper()
	node := netnstest.Node(t)
	w := world{node, netnstest.NewPod(t, node, 1), netnstest.NewPod(t, node, 2)}
	for _, peer := range []netip.Addr{w.peer.V4, w.peer.V6} {
		answerer(t, w.peer.NS, at(peer, 53), 0, func(text string, from netip.AddrPort) string {
			return fmt.Sprintf("peer %s: %s", from.Addr(), text)
		})
	}
	for lo, peer := range map[netip.Addr]netip.Addr{loopback4: w.peer.V4, loopback6: w.peer.V6} {
		answerer(t, w.pod.NS, at(lo, 53), 0, func(text string, _ netip.AddrPort) string { return "pod: " + text })
		answerer(t, w.pod.NS, at(lo, 15053), linux.Mark, func(text string, from netip.AddrPort) string {
			c, err := linux.DialUDP(t.Context(), w.pod.NS, at(peer, 53), linux.DialOptions{Mark: linux.Mark})
			if err != nil {
				return err.Error()
			}
			defer c.Close()
			return "by 15053 " + query(c, text)
		})
	}
	netnstest.Serve(t, w.peer.NS, 53, "peer", linux.ListenOptions{})
	netnstest.Serve(t, w.pod.NS, 15053, "by 15053", linux.ListenOptions{Mark: linux.Mark})
	return w
}

func TestDNSIsCaptured(t *testing.T) {
	w := resolving(t)
	for _, mode := range []struct {
		name string
		spec rules.Spec
		by   string
	}{
		{"captured", rules.Spec{DNS: true}, "by 15053 "},
		{"not captured", rules.Spec{}, ""},
		{"draining", rules.Spec{DNS: true, Draining: true}, ""},
		{"captured again", rules.Spec{DNS: true, BypassInbound: true}, "by 15053 "},
	} {
		apply(t, w.pod.NS, mode.spec)
		for _, f := range []struct{ pod, peer, loopback netip.Addr }{{w.pod.V4, w.peer.V4, loopback4}, {w.pod.V6, w.peer.V6, loopback6}} {
			c := socket(t, w.pod.NS, at(f.peer, 53), 0)
			for _, text := range []string{"one", "two", "three"} { // of one conversation
				if got, want := query(c, text), fmt.Sprintf("%speer %s: %s", mode.by, f.pod, text); got != want {
					t.Errorf("%s, to %s: answer %q, want %q", mode.name, f.peer, got, want)
				}
			}
			if got := query(socket(t, w.pod.NS, at(f.loopback, 53), 0), "hi"); got != "pod: hi" {
				t.Errorf("%s, a resolver on loopback: answer %q", mode.name, got)
			}
			if got, want := query(socket(t, w.pod.NS, at(f.peer, 53), linux.Mark), "hi"), fmt.Sprintf("peer %s: hi", f.pod); got != want {
				t.Errorf("%s, ztunnel's own: answer %q, want %q", mode.name, got, want)
			}
			if mode.by == "" {
				continue // TCP is carried as any other then
			}
			if got, want := netnstest.Ask(t, w.pod.NS, at(f.peer, 53), "hi"), fmt.Sprintf("by 15053 %s: hi", f.pod); got != want {
				t.Errorf("%s, by TCP: answer %q, want %q", mode.name, got, want)
			}
		}
	}
}

// bound sends from one port, which the kernel's choice may meet by chance.
func bound(t *testing.T, w world, mark int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	netnstest.Do(t, w.pod.NS, func() (err error) {
		c, err = net.DialUDP("udp4", &net.UDPAddr{IP: w.pod.V4.AsSlice(), Port: 40000}, net.UDPAddrFromAddrPort(at(w.peer.V4, 53)))
		return err
	})
	t.Cleanup(func() { c.Close() })
	if mark != 0 {
		markSocket(t, c, mark)
	}
	return c
}

func TestZtunnelsQueriesAreNotTakenForThoseOfPrograms(t *testing.T) {
	w := resolving(t)
	apply(t, w.pod.NS, rules.Spec{DNS: true})
	program := bound(t, w, 0)
	if got, want := query(program, "hi"), fmt.Sprintf("by 15053 peer %s: hi", w.pod.V4); got != want {
		t.Fatalf("the program: answer %q, want %q", got, want)
	}
	program.Close()
	if got, want := query(bound(t, w, linux.Mark), "hi"), fmt.Sprintf("peer %s: hi", w.pod.V4); got != want {
		t.Errorf("ztunnel from the same port: answer %q, want %q", got, want)
	}
}

func TestAProgramThatKeepsItsSocketFollowsTheRules(t *testing.T) {
	w := resolving(t)
	apply(t, w.pod.NS, rules.Spec{DNS: true})
	c := socket(t, w.pod.NS, at(w.peer.V4, 53), 0)
	direct := fmt.Sprintf("peer %s: hi", w.pod.V4)
	for _, step := range []struct {
		name   string
		spec   rules.Spec
		forget bool
		want   string
	}{
		{"captured", rules.Spec{DNS: true}, false, "by 15053 " + direct},
		{"draining leaves it with ztunnel", rules.Spec{DNS: true, Draining: true}, false, "by 15053 " + direct},
		{"not captured any more", rules.Spec{}, true, direct},
		{"captured again", rules.Spec{DNS: true}, true, "by 15053 " + direct},
	} {
		apply(t, w.pod.NS, step.spec)
		if step.forget {
			if err := rules.ForgetNames(w.pod.NS, step.spec); err != nil {
				t.Fatal(err)
			}
		}
		if got := query(c, "hi"); got != step.want {
			t.Errorf("%s: answer %q, want %q", step.name, got, step.want)
		}
	}
	if err := rules.Remove(w.pod.NS); err != nil {
		t.Fatal(err)
	}
	if got := query(c, "hi"); got != direct {
		t.Errorf("without rules: answer %q, want %q", got, direct)
	}
}

func TestWhoHoldsTheDNSPort(t *testing.T) {
	ns := netnstest.New(t)
	taken := func(when string, want bool) {
		t.Helper()
		if got, err := rules.PortTaken(ns); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", when, got, err, want)
		}
	}
	taken("nobody", false)
	udp := answerer(t, ns, netip.MustParseAddrPort("0.0.0.0:15053"), 0, func(string, netip.AddrPort) string { return "" })
	taken("a program, by UDP", true)
	udp.Close()
	taken("nobody again", false)
	tcp, err := linux.ListenTCP(t.Context(), ns, netip.MustParseAddrPort("[::]:15053"), linux.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	taken("a program, by TCP", true)
	tcp.Close()
	answerer(t, ns, netip.MustParseAddrPort("127.0.0.1:15053"), linux.Mark, func(string, netip.AddrPort) string { return "" })
	taken("ztunnel", false)
}

func markSocket(t *testing.T, c *net.UDPConn, mark int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
	if err != nil {
		t.Fatal(err)
	}
}

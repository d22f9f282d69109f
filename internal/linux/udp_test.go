package linux_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
)

// datagram sends a text and gives what comes back.
func datagram(t *testing.T, ns *linux.NetNS, to netip.AddrPort, text string) *net.UDPConn {
	t.Helper()
	c, err := linux.DialUDP(t.Context(), ns, to, linux.DialOptions{Mark: linux.Mark})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDatagramsInTheNamespace(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	for _, host := range []string{"127.0.0.1", "::1"} {
		at := netip.AddrPortFrom(netip.MustParseAddr(host), 15053)
		o := linux.ListenOptions{Mark: linux.Mark, ReusePort: true}
		old, err := linux.ListenUDP(t.Context(), ns, at, o)
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		queued := datagram(t, ns, at, "early")
		// A newer socket beside it gets everything once the old one turns away.
		fresh, err := linux.ListenUDP(t.Context(), ns, at, o)
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		if err := linux.TurnAway(old); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			c := datagram(t, ns, at, "late")
			answer(t, fresh, "late")
			expect(t, c, "late")
		}
		answer(t, old, "early")
		expect(t, queued, "early")
		raw, err := old.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if mark, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); err != nil || mark != linux.Mark {
				t.Errorf("mark %#x, %v", mark, err)
			}
		})
	}
}

func answer(t *testing.T, s *net.UDPConn, want string) {
	t.Helper()
	s.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 16)
	n, from, err := s.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("received %q, %v; want %q", b[:n], err, want)
	}
	if _, err := s.WriteToUDPAddrPort(b[:n], from); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c *net.UDPConn, want string) {
	t.Helper()
	b := make([]byte, 16)
	if n, err := c.Read(b); err != nil || string(b[:n]) != want {
		t.Fatalf("answered %q, %v; want %q", b[:n], err, want)
	}
}

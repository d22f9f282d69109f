package linux_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
)

func TestDoEntersAndLeaves(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	home, err := linux.CurrentNetNS()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	inside := func() linux.NetNSID {
		n, err := linux.CurrentNetNS()
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		return n.ID()
	}
	if ns.ID() == home.ID() {
		t.Fatal("the new namespace is our own")
	}
	if err := ns.Do(func() error {
		if got := inside(); got != ns.ID() {
			t.Errorf("inside Do: namespace %v, want %v", got, ns.ID())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := inside(); got != home.ID() {
		t.Errorf("after Do: namespace %v, want %v", got, home.ID())
	}
	oops := errors.New("oops")
	if err := ns.Do(func() error { return oops }); !errors.Is(err, oops) {
		t.Errorf("Do gave %v, want the function's error", err)
	}
}

func TestOnlyNetworkNamespacesAreTaken(t *testing.T) {
	for _, path := range []string{"/etc/hostname", "/proc/self/ns/mnt"} {
		if n, err := linux.OpenNetNS(path); err == nil {
			n.Close()
			t.Errorf("%s was taken for a network namespace", path)
		}
	}
}

func TestSocketsLiveInTheNamespace(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	for _, host := range []string{"0.0.0.0", "127.0.0.1", "::", "::1"} {
		t.Run(host, func(t *testing.T) {
			l := listen(t, ns, host, linux.ListenOptions{Mark: linux.Mark, ReusePort: true, Transparent: true, KeepAlive: linux.KeepAlive})
			to := linux.AddrPort(l.Addr())
			if to.Addr().IsUnspecified() {
				to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
			}
			if c, err := net.Dial("tcp", to.String()); err == nil {
				c.Close()
				t.Fatal("reached the listener from outside its namespace")
			}
			c, err := linux.DialTCP(t.Context(), ns, to, linux.DialOptions{Mark: linux.Mark, KeepAlive: linux.KeepAlive})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := linux.AddrPort(c.RemoteAddr()); got != to {
				t.Errorf("remote address %v, want %v", got, to)
			}
			s, err := l.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for name, end := range map[string]*net.TCPConn{"dialled": c, "accepted": s} {
				if got := sockopt(t, end, unix.SOL_SOCKET, unix.SO_MARK); got != linux.Mark {
					t.Errorf("%s: mark %#x, want %#x", name, got, linux.Mark)
				}
				on, idle := sockopt(t, end, unix.SOL_SOCKET, unix.SO_KEEPALIVE), sockopt(t, end, unix.SOL_TCP, unix.TCP_KEEPIDLE)
				if on != 1 || idle != 180 {
					t.Errorf("%s: keepalive %d after %d s, want on after 180 s", name, on, idle)
				}
			}
			if dst, err := linux.OriginalDst(s); err != nil || dst != to {
				t.Errorf("original destination of a connection that nobody redirected: %v, %v; want %v", dst, err, to)
			}
			exchange(t, c, s)
		})
	}
}

func TestTwoListenersShareAPort(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	l := listen(t, ns, "::", linux.ListenOptions{ReusePort: true})
	at := l.Addr().(*net.TCPAddr).AddrPort()
	second, err := linux.ListenTCP(t.Context(), ns, at, linux.ListenOptions{ReusePort: true})
	if err != nil {
		t.Fatalf("second listener with SO_REUSEPORT: %v", err)
	}
	second.Close()
	if third, err := linux.ListenTCP(t.Context(), ns, at, linux.ListenOptions{}); err == nil {
		third.Close()
		t.Error("a listener without SO_REUSEPORT bound a port in use")
	} else if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port in use gave %v, want EADDRINUSE", err)
	}
}

func TestSpoofedSourceIsSeen(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	// Everything is local inside, so that the answer to the spoofed address
	// finds its way back, as the pod's routing table 100 does it.
	for _, c := range []struct{ listen, source string }{{"127.0.0.1", "10.9.8.7"}, {"::1", "fd00::987"}} {
		t.Run(c.source, func(t *testing.T) {
			if err := ns.Do(func() error {
				bits := map[bool]string{true: "/32", false: "/128"}[netip.MustParseAddr(c.source).Is4()]
				out, err := exec.Command("ip", "route", "add", "local", c.source+bits, "dev", "lo").CombinedOutput()
				if err != nil {
					t.Logf("%s", out)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			l := listen(t, ns, c.listen, linux.ListenOptions{Transparent: true})
			conn, err := linux.DialTCP(t.Context(), ns, linux.AddrPort(l.Addr()), linux.DialOptions{Source: netip.MustParseAddr(c.source)})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			s, err := l.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got := linux.AddrPort(s.RemoteAddr()).Addr().String(); got != c.source {
				t.Errorf("the server sees %s, want %s", got, c.source)
			}
			exchange(t, conn, s)
		})
	}
}

// TestASpoofedConnectionIsApartFromTheHostsOwn: the host whose address is
// spoofed gives its connections ports that no spoofed one has, so that neither
// is taken for the other.
func TestASpoofedConnectionIsApartFromTheHostsOwn(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	linuxtest.Run(t, ns, "ip", "route", "add", "local", "10.9.8.7/32", "dev", "lo")
	l := listen(t, ns, "127.0.0.1", linux.ListenOptions{Transparent: true})
	to, source := linux.AddrPort(l.Addr()), netip.MustParseAddr("10.9.8.7")
	var seen []uint16
	dial := func(t *testing.T) {
		t.Helper()
		c, err := linux.DialTCP(t.Context(), ns, to, linux.DialOptions{Source: source})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		seen = append(seen, linux.AddrPort(c.LocalAddr()).Port())
	}

	for range 20 {
		dial(t)
	}
	for _, port := range seen {
		if port < 61000 {
			t.Errorf("spoofed ports are %d: among those that hosts give their own connections", seen)
			break
		}
	}

	// Somebody has all of the next ones to himself.
	last := seen[len(seen)-1]
	for i := range uint16(100) {
		other, err := linux.ListenTCP(t.Context(), ns, netip.AddrPortFrom(source, 61000+(last-61000+1+i)%4536), linux.ListenOptions{Transparent: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { other.Close() })
	}
	dial(t)
	if port := seen[len(seen)-1]; port == 0 || port >= 61000 {
		t.Errorf("with all ports in use the kernel was to choose, not %d", port)
	}
}

func TestOriginalDestinationOfARedirectedConnection(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	linuxtest.Run(t, ns, "nft", "-f", "-", `
table inet t {
  chain output { type nat hook output priority -100;
    ip daddr 127.9.9.9 tcp dport 80 redirect to :15001
    ip6 daddr fd00::9 tcp dport 80 redirect to :15001
  }
}`)
	linuxtest.Run(t, ns, "ip", "route", "add", "local", "fd00::9/128", "dev", "lo")
	l, err := linux.ListenTCP(t.Context(), ns, netip.MustParseAddrPort("[::]:15001"), linux.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, dst := range []string{"127.9.9.9:80", "[fd00::9]:80"} {
		c, err := linux.DialTCP(t.Context(), ns, netip.MustParseAddrPort(dst), linux.DialOptions{})
		if err != nil {
			t.Fatalf("dialling %s: %v", dst, err)
		}
		defer c.Close()
		s, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got, err := linux.OriginalDst(s); err != nil || got.String() != dst {
			t.Errorf("original destination %v, %v; want %s", got, err, dst)
		}
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	linuxtest.Run(t, ns, "nft", "-f", "-", `
table inet t {
  chain o { type filter hook output priority 0;
    tcp dport 9 drop
  }
}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := linux.DialTCP(ctx, ns, netip.MustParseAddrPort("127.0.0.1:9"), linux.DialOptions{}); err == nil {
		c.Close()
		t.Fatal("connected to a dropped port")
	}
}

func TestSysctlsAreTheNamespaces(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	const name = "net.ipv4.tcp_migrate_req"
	outside, err := linux.ReadSysctl(name)
	if err != nil {
		t.Skipf("this kernel has no %s", name)
	}
	if err := ns.Do(func() error { return linux.WriteSysctl(name, "1") }); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(func() error {
		got, err := linux.ReadSysctl(name)
		if got != "1" {
			t.Errorf("inside: %q, want 1", got)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if now, _ := linux.ReadSysctl(name); now != outside {
		t.Errorf("the namespace's setting leaked out: %q, was %q", now, outside)
	}
}

func TestOpenFilesAreRaised(t *testing.T) {
	n, err := linux.RaiseOpenFiles()
	if err != nil {
		t.Fatal(err)
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur != l.Max || l.Cur != n {
		t.Errorf("limit %d of %d, told %d", l.Cur, l.Max, n)
	}
}

func listen(t *testing.T, ns *linux.NetNS, host string, o linux.ListenOptions) *net.TCPListener {
	t.Helper()
	l, err := linux.ListenTCP(t.Context(), ns, netip.AddrPortFrom(netip.MustParseAddr(host), 0), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func sockopt(t *testing.T, c *net.TCPConn, level, name int) (value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, name) })
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// exchange half-closes one way and answers the other.
func exchange(t *testing.T, c, s *net.TCPConn) {
	t.Helper()
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	if b, err := io.ReadAll(s); err != nil || string(b) != "ping" {
		t.Fatalf("server read %q, %v", b, err)
	}
	io.WriteString(s, "pong")
	s.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "pong" {
		t.Fatalf("client read %q, %v", b, err)
	}
}

package linux_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
)

// elsewhere is a namespace in which everything is sent to two hosts that do not
// exist, and given to a listener; the program of the pod has their port, too.
func elsewhere(t *testing.T) (ns *linux.NetNS, listeners map[netip.AddrPort]*linux.DatagramSocket) {
	t.Helper()
	ns = linuxtest.NewNetNS(t)
	linuxtest.Run(t, ns, "ip", "route", "add", "local", "10.9.8.7/32", "dev", "lo")
	linuxtest.Run(t, ns, "ip", "route", "add", "local", "fd00::987/128", "dev", "lo")
	linuxtest.Run(t, ns, "nft", "-f", "-", `
table inet t {
  chain prerouting { type filter hook prerouting priority mangle;
    ip daddr 10.9.8.7 udp dport 80 tproxy ip to 127.0.0.1:15001
    ip6 daddr fd00::987 udp dport 80 tproxy ip6 to [::1]:15001
  }
}`)
	listeners = map[netip.AddrPort]*linux.DatagramSocket{}
	for to, at := range map[string]string{"10.9.8.7:80": "127.0.0.1:15001", "[fd00::987]:80": "[::1]:15001"} {
		l, err := linux.ListenDatagrams(t.Context(), ns, netip.MustParseAddrPort(at), linux.ListenOptions{Mark: linux.Mark})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		listeners[netip.MustParseAddrPort(to)] = l
	}
	for _, at := range []string{"0.0.0.0:80", "[::]:80"} {
		program, err := linux.ListenUDP(t.Context(), ns, netip.MustParseAddrPort(at), linux.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { program.Close() })
	}
	return ns, listeners
}

func TestDatagramsToldWhereTheyWereGoingAndAnsweredFromThere(t *testing.T) {
	ns, listeners := elsewhere(t)
	answers, err := linux.NewAnswers(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Close()
	for to, l := range listeners {
		c, err := linux.DialUDP(t.Context(), ns, to, linux.DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		from := c.LocalAddr().(*net.UDPAddr).AddrPort()
		for _, size := range []int{0, 1, 2, 3, 1472, 9000, 65507 - 20} {
			sent := bytes.Repeat([]byte{'x'}, size)
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			got := 0
			if err := l.Receive(func(d linux.Datagram) {
				got++
				if d.Source != from || d.Destination != to || !bytes.Equal(d.Payload, sent) {
					t.Errorf("%d bytes from %s to %s; want %d from %s to %s", len(d.Payload), d.Source, d.Destination, size, from, to)
				}
				if err := answers.Send(append(d.Payload, '!')[:len(d.Payload)], d.Destination, d.Source); err != nil {
					t.Error(err)
				}
			}); err != nil || got != 1 {
				t.Fatalf("%d received, %v; want one", got, err)
			}
			c.SetDeadline(time.Now().Add(10 * time.Second))
			b := make([]byte, 1<<16)
			n, err := c.Read(b) // only from the address that it is connected to
			if err != nil || !bytes.Equal(b[:n], sent) {
				t.Errorf("%d bytes to %s: answered %d, %v", size, to, n, err)
			}
		}
	}
}

func TestWhatAnAnswerCannotBe(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	answers, err := linux.NewAnswers(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, from, to string
		size           int
	}{
		{"of two families", "10.9.8.7:80", "[::1]:9", 1},
		{"larger than any", "10.9.8.7:80", "127.0.0.1:9", 65508},
		{"to nowhere", "10.9.8.7:80", "10.9.8.6:9", 1},
	} {
		if err := answers.Send(make([]byte, c.size), netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to)); err == nil {
			t.Errorf("%s: sent", c.what)
		}
	}
	for range 2 {
		if err := answers.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDatagramsThatNobodyReceivesAreCounted(t *testing.T) {
	ns, listeners := elsewhere(t)
	for to, l := range listeners {
		c, err := linux.DialUDP(t.Context(), ns, to, linux.DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if lost, err := l.Lost(); lost != 0 || err != nil {
			t.Errorf("at first: %d lost, %v", lost, err)
		}
		const sent = 3000
		for range sent {
			c.Write(make([]byte, 1000))
		}
		lost, err := l.Lost()
		if lost == 0 || err != nil {
			t.Fatalf("%d lost of %d, %v", lost, sent, err)
		}
		received := uint32(0)
		for received < sent-lost {
			if err := l.Receive(func(linux.Datagram) { received++ }); err != nil {
				t.Fatal(err)
			}
		}
		if now, err := l.Lost(); now+received != sent || err != nil {
			t.Errorf("%d received and %d lost, %v; want %d together", received, now, err, sent)
		}
	}
}

func TestReceivingEndsWithTheListener(t *testing.T) {
	_, listeners := elsewhere(t)
	for _, l := range listeners {
		done := make(chan error)
		go func() { done <- l.Receive(func(linux.Datagram) {}) }()
		for range 2 {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := <-done; err == nil {
			t.Error("no error after the end")
		}
	}
}

func TestASpoofedDatagramIsSeenAndAnswered(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	for _, c := range []struct{ listen, source string }{{"127.0.0.1:7000", "10.9.8.7"}, {"[::1]:7000", "fd00::987"}} {
		source := netip.MustParseAddr(c.source)
		linuxtest.Run(t, ns, "ip", "route", "add", "local", c.source, "dev", "lo")
		to := netip.MustParseAddrPort(c.listen)
		s, err := linux.ListenUDP(t.Context(), ns, to, linux.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		spoofed, err := linux.DialUDP(t.Context(), ns, to, linux.DialOptions{Source: source, Mark: linux.Mark})
		if err != nil {
			t.Fatal(err)
		}
		defer spoofed.Close()
		if at := spoofed.LocalAddr().(*net.UDPAddr).AddrPort(); at.Addr() != source || at.Port() < 61000 {
			t.Errorf("sends from %s, want %s and a port that no host gives its own", at, source)
		}
		spoofed.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := spoofed.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		answer(t, s, "hi")
		expect(t, spoofed, "hi")

		// Somebody has all of the next ones to himself.
		next := spoofed.LocalAddr().(*net.UDPAddr).Port - 61000 + 1
		for i := range 100 {
			at := netip.AddrPortFrom(map[bool]netip.Addr{true: netip.IPv4Unspecified(), false: netip.IPv6Unspecified()}[source.Is4()], uint16(61000+(next+i)%4536))
			other, err := linux.ListenUDP(t.Context(), ns, at, linux.ListenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
		}
		last, err := linux.DialUDP(t.Context(), ns, to, linux.DialOptions{Source: source})
		if err != nil {
			t.Fatal(err)
		}
		defer last.Close()
		if port := last.LocalAddr().(*net.UDPAddr).Port; port == 0 || port >= 61000 {
			t.Errorf("with all ports in use the kernel was to choose, not %d", port)
		}
	}
}

// TestAnswersReceiveNothing: of each datagram the kernel gives raw sockets a
// copy.
func TestAnswersReceiveNothing(t *testing.T) {
	ns, listeners := elsewhere(t)
	answers, err := linux.NewAnswers(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Close()
	for to, l := range listeners {
		c, err := linux.DialUDP(t.Context(), ns, to, linux.DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("hi"))
		if err := l.Receive(func(linux.Datagram) {}); err != nil {
			t.Fatal(err)
		}
	}
	waiting := linuxtest.Run(t, ns, "cat", "/proc/thread-self/net/raw", "/proc/thread-self/net/raw6")
	for line := range bytes.Lines([]byte(waiting)) {
		f := bytes.Fields(line)
		if len(f) > 4 && f[0][len(f[0])-1] == ':' && !bytes.HasSuffix(f[4], []byte(":00000000")) {
			t.Errorf("something waits to be read: %s", line)
		}
	}
	if !bytes.Contains([]byte(waiting), []byte(":0011 ")) {
		t.Fatalf("no socket of UDP (%d) is seen:\n%s", unix.IPPROTO_UDP, waiting)
	}
}

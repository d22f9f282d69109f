package rules_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// TestNothingIsRememberedOfDatagrams: sockets that sent in clear, for want of
// rules, are captured from the next datagram on, and the other way round.
func TestNothingIsRememberedOfDatagrams(t *testing.T) {
	w := exchanging(t)
	out, in := socket(t, w.pod.NS, at(w.peer.V4, 8080), 0), socket(t, w.peer.NS, at(w.pod.V4, 8080), 0)
	for _, step := range []struct {
		name    string
		do      func()
		out, in string
	}{
		{"before", func() {}, "", ""},
		{"opted in", func() { apply(t, w.pod.NS, rules.Spec{UDP: true}) }, "by 15001 ", "by 15006 "},
		{"all rules deleted", func() {
			hurt(t, w.pod.NS, damage{"all", func(c *nftables.Conn, _ *nftables.Table) error { c.FlushRuleset(); return nil }})
		}, "", ""},
		{"mended", func() { apply(t, w.pod.NS, rules.Spec{UDP: true}) }, "by 15001 ", "by 15006 "},
		{"draining", func() { apply(t, w.pod.NS, rules.Spec{UDP: true, Draining: true}) }, "", ""},
		{"back", func() { apply(t, w.pod.NS, rules.Spec{UDP: true}) }, "by 15001 ", "by 15006 "},
		{"opted out", func() { apply(t, w.pod.NS, rules.Spec{}) }, "", ""},
	} {
		step.do()
		for range 3 {
			if got, want := query(out, "hi"), fmt.Sprintf("%speer %s: hi", step.out, w.pod.V4); got != want {
				t.Errorf("%s: answer %q, want %q", step.name, got, want)
			}
			if got, want := query(in, "hi"), fmt.Sprintf("%spod %s: hi", step.in, w.peer.V4); got != want {
				t.Errorf("%s: answer %q, want %q", step.name, got, want)
			}
		}
	}
}

// TestWhatIsSentToManyIsLeftAlone: it has no peer that ztunnel could find.
func TestWhatIsSentToManyIsLeftAlone(t *testing.T) {
	w := silent(t)
	carry(t, w.pod.NS)
	apply(t, w.pod.NS, rules.Spec{UDP: true})
	for _, group := range []netip.AddrPort{netip.MustParseAddrPort("239.1.2.3:8080"), netip.MustParseAddrPort("[ff02::abcd]:8080")} {
		for _, way := range []struct {
			from, to   *linux.NetNS
			cableAtEnd string
			cable      string
		}{{w.pod.NS, w.node, "veth1", "eth0"}, {w.node, w.pod.NS, "eth0", "veth1"}} {
			members := member(t, way.to, way.cableAtEnd, group)
			c := sender(t, way.from, way.cable, group)
			// The first may be lost on a cable that is new, rules or not.
			within(t, fmt.Sprintf("something sent to %s by %s is heard", group, way.cable), func() bool {
				if _, err := c.Write([]byte("hi")); err != nil {
					t.Fatal(err)
				}
				members.SetDeadline(time.Now().Add(50 * time.Millisecond))
				_, from, err := members.ReadFromUDPAddrPort(make([]byte, 9))
				if err == nil && from.Port() != uint16(c.LocalAddr().(*net.UDPAddr).Port) {
					t.Errorf("to %s by %s: heard of %s, want %s", group, way.cable, from, c.LocalAddr())
				}
				return err == nil
			})
		}
	}
}

// member is a socket in ns that hears what is sent to a group.
func member(t *testing.T, ns *linux.NetNS, cable string, group netip.AddrPort) (c *net.UDPConn) {
	t.Helper()
	netnstest.Do(t, ns, func() error {
		i, err := net.InterfaceByName(cable)
		if err != nil {
			return err
		}
		c, err = net.ListenMulticastUDP("udp", i, net.UDPAddrFromAddrPort(group))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// sender is a socket in ns that sends to a group by one cable.
func sender(t *testing.T, ns *linux.NetNS, cable string, group netip.AddrPort) (c *net.UDPConn) {
	t.Helper()
	netnstest.Do(t, ns, func() (err error) {
		to := net.UDPAddrFromAddrPort(group)
		if group.Addr().Is6() {
			to.Zone = cable
		}
		d := net.Dialer{Control: boundTo(cable)}
		conn, err := d.DialContext(t.Context(), "udp", to.String())
		if err == nil {
			c = conn.(*net.UDPConn)
		}
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// boundTo ties a socket to a cable.
func boundTo(cable string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), cable) })
		return errors.Join(err, failed)
	}
}

// TestAPodWithoutIPv6HasItsDatagramsCaptured, of which all are of IPv4.
func TestAPodWithoutIPv6HasItsDatagramsCaptured(t *testing.T) {
	w := silent(t)
	netnstest.Do(t, w.pod.NS, func() error { return linux.WriteSysctl("net.ipv6.conf.all.disable_ipv6", "1") })
	echo(t, w.peer.NS, 8080, "peer")
	carryAt(t, w.pod.NS, loopback4)
	apply(t, w.pod.NS, rules.Spec{UDP: true})
	if got, want := says(t, w.pod.NS, at(w.peer.V4, 8080), "hi"), fmt.Sprintf("by 15001 peer %s: hi", w.pod.V4); got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
}

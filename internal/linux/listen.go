package linux

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ListenOptions are a listener's further wishes.
type ListenOptions struct {
	// Mark is put on the packets of the listener and of what it accepts; 0 is
	// none.
	Mark int
	// ReusePort lets an older and a newer proxy listen side by side.
	ReusePort bool
	// Transparent accepts connections to addresses that are not of this host.
	Transparent bool
	// KeepAlive is for accepted connections, which inherit it; off if Enable is
	// false.
	KeepAlive net.KeepAliveConfig
}

// ListenTCP listens inside ns, or here if ns is nil. A wildcard IPv6 address
// accepts IPv4 too, as mapped addresses. Multipath TCP is off: its sockets
// give no original destination.
func ListenTCP(ctx context.Context, ns *NetNS, at netip.AddrPort, o ListenOptions) (*net.TCPListener, error) {
	options := []option{intOption("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)}
	if at.Addr().Is6() {
		only := 1
		if at.Addr().IsUnspecified() {
			only = 0
		}
		options = append(options, intOption("IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, only))
	}
	if o.Mark != 0 {
		options = append(options, markOption(o.Mark))
	}
	if o.ReusePort {
		options = append(options, intOption("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	if o.Transparent {
		options = append(options, transparent)
	}
	if o.KeepAlive.Enable {
		options = append(options, keepAlive(o.KeepAlive)...)
	}
	// Negative: Go would set it on each accepted connection, by four calls.
	config := net.ListenConfig{Control: overTCP.swapIn(ns, family(at.Addr()), options), KeepAlive: -1}
	config.SetMultipathTCP(false)
	l, err := config.Listen(ctx, overTCP.network(at.Addr()), at.String())
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return l.(*net.TCPListener), nil
}

// Wildcard is the address that accepts every family that the current
// namespace has.
func Wildcard(port uint16) netip.AddrPort {
	if HasIPv6() {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
}

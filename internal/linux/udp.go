package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ListenUDP receives datagrams inside ns, or here if ns is nil. Of the options
// Mark and ReusePort count.
func ListenUDP(ctx context.Context, ns *NetNS, at netip.AddrPort, o ListenOptions) (*net.UDPConn, error) {
	return listenUDP(ctx, ns, at, o)
}

func listenUDP(ctx context.Context, ns *NetNS, at netip.AddrPort, o ListenOptions, options ...option) (*net.UDPConn, error) {
	if at.Addr().Is6() {
		options = append(options, intOption("IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, 1))
	}
	if o.Mark != 0 {
		options = append(options, markOption(o.Mark))
	}
	if o.ReusePort {
		options = append(options, intOption("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	config := net.ListenConfig{Control: overUDP.swapIn(ns, family(at.Addr()), options)}
	c, err := config.ListenPacket(ctx, overUDP.network(at.Addr()), at.String())
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return c.(*net.UDPConn), nil
}

// DialUDP makes a socket inside ns, or here if ns is nil, that exchanges
// datagrams with one address. Of the options Mark and Source count.
func DialUDP(ctx context.Context, ns *NetNS, to netip.AddrPort, o DialOptions) (*net.UDPConn, error) {
	to = canonical(to)
	var options []option
	if o.Mark != 0 {
		options = append(options, markOption(o.Mark))
	}
	source := o.Source.Unmap()
	if !source.IsValid() || source == to.Addr() {
		return dialUDP(ctx, ns, nil, to, options)
	}
	options = append(options, transparent, freebind)
	for range spoofedTries {
		c, err := dialUDP(ctx, ns, &net.UDPAddr{IP: source.AsSlice(), Port: spoofedPort()}, to, options)
		if !errors.Is(err, unix.EADDRINUSE) {
			return c, err
		}
	}
	return dialUDP(ctx, ns, &net.UDPAddr{IP: source.AsSlice()}, to, options)
}

// dialUDP makes one; from is nil if the kernel chooses.
func dialUDP(ctx context.Context, ns *NetNS, from *net.UDPAddr, to netip.AddrPort, options []option) (*net.UDPConn, error) {
	var d net.Dialer
	if from != nil {
		d.LocalAddr = from
	}
	if ns != nil || len(options) > 0 {
		d.Control = overUDP.swapIn(ns, family(to.Addr()), options)
	}
	c, err := d.DialContext(ctx, overUDP.network(to.Addr()), to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// TurnAway leaves new datagrams to the other sockets of the port: a socket that
// is connected, here to nobody, is passed over. What is queued can still be
// read, and anyone be written to.
func TurnAway(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}
	if at, ok := c.LocalAddr().(*net.UDPAddr); ok && at.AddrPort().Addr().Unmap().Is6() {
		to = &unix.SockaddrInet6{Addr: [16]byte{15: 1}, Port: 9}
	}
	var connect error
	if err := raw.Control(func(fd uintptr) { connect = unix.Connect(int(fd), to) }); err != nil {
		return err
	}
	return os.NewSyscallError("connect", connect)
}

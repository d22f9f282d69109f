package linux

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// DialOptions are a connection's further wishes.
type DialOptions struct {
	// Mark is put on the packets, with SpoofedMark if the source is spoofed; 0 is
	// none.
	Mark int
	// Source spoofs the source address. Its port is one that the host with that
	// address is not likely to have in use towards the same destination; see
	// firstSpoofed. The zero value and the destination's own address are no
	// spoofing.
	Source netip.Addr
	// KeepAlive as in net.Dialer.
	KeepAlive net.KeepAliveConfig
}

// The source ports of spoofed connections. The host whose address is spoofed
// may have a connection to the same destination, that of a client outside of
// the mesh or from before it; if the ports were the same too, a packet of one
// would be taken for the other's, by the kernel's connection tracking as by the
// program, and both would end. Rules tell them apart by SpoofedMark (cni/rules);
// where others lay the rules there is only this: a host gives its own
// connections ports of 32768 to 60999 (net.ipv4.ip_local_port_range), so these
// are above. Programs do not listen there either, for the kernel of old used
// them for masquerading.
const (
	firstSpoofed = 61000
	lastSpoofed  = 65535
	// spoofedTries are as many ports as are tried before the kernel may choose
	// any: all are in use when a client makes more than 75 connections a second
	// to one destination and ends them first, as each port then rests a minute.
	spoofedTries = 3
)

var spoofedPorts atomic.Uint32

// spoofedPort is the port after the one before, all over again.
func spoofedPort() int {
	return firstSpoofed + int(spoofedPorts.Add(1)%(lastSpoofed-firstSpoofed+1))
}

// DialTCP connects from inside ns, or from here if ns is nil. Only making the
// socket holds a thread; the wait does not. An address of another family than
// the destination's cannot be spoofed and is an error of the bind.
func DialTCP(ctx context.Context, ns *NetNS, to netip.AddrPort, o DialOptions) (*net.TCPConn, error) {
	to = canonical(to)
	source := o.Source.Unmap()
	spoofs := source.IsValid() && source != to.Addr()
	var options []option
	if mark := o.Mark; mark != 0 {
		if spoofs {
			mark |= SpoofedMark
		}
		options = append(options, markOption(mark))
	}
	if !spoofs {
		return dialTCP(ctx, ns, nil, to, options, o.KeepAlive)
	}
	options = append(options, transparent, freebind)
	for range spoofedTries {
		from := &net.TCPAddr{IP: source.AsSlice(), Port: spoofedPort()}
		// A port that rests, or has connections to elsewhere, can be had.
		c, err := dialTCP(ctx, ns, from, to, append(options, intOption("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)), o.KeepAlive)
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return c, err
		}
	}
	// Chosen at connect, by the whole four-tuple: a busy client then has all
	// ports for each destination.
	options = append(options, intOption("IP_BIND_ADDRESS_NO_PORT", unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1))
	return dialTCP(ctx, ns, &net.TCPAddr{IP: source.AsSlice()}, to, options, o.KeepAlive)
}

// dialTCP connects once; from is nil if the kernel chooses.
func dialTCP(
	ctx context.Context, ns *NetNS, from *net.TCPAddr, to netip.AddrPort, options []option, keepAlive net.KeepAliveConfig,
) (*net.TCPConn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive}
	if from != nil {
		d.LocalAddr = from
	}
	if keepAlive != (net.KeepAliveConfig{}) && !keepAlive.Enable {
		d.KeepAlive = -1
	}
	if ns != nil || len(options) > 0 {
		d.Control = overTCP.swapIn(ns, family(to.Addr()), options)
	}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, overTCP.network(to.Addr()), to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

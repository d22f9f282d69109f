package linux

import (
	"context"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// DialOptions are a connection's further wishes.
type DialOptions struct {
	// Mark is put on the packets; 0 is none.
	Mark int
	// Source spoofs the source address; its port is always the kernel's
	// choice, since a spoofed port may be in use (dataplane spec 2.1). The zero
	// value and the destination's own address are no spoofing.
	Source netip.Addr
	// KeepAlive as in net.Dialer.
	KeepAlive net.KeepAliveConfig
}

// DialTCP connects from inside ns, or from here if ns is nil. Only making the
// socket holds a thread; the wait does not. An address of another family than
// the destination's cannot be spoofed and is an error of the bind.
func DialTCP(ctx context.Context, ns *NetNS, to netip.AddrPort, o DialOptions) (*net.TCPConn, error) {
	to = canonical(to)
	source := o.Source.Unmap()
	var options []option
	if o.Mark != 0 {
		options = append(options, markOption(o.Mark))
	}
	d := net.Dialer{KeepAliveConfig: o.KeepAlive}
	if source.IsValid() && source != to.Addr() {
		options = append(options, transparent, freebind,
			// The port is chosen at connect, by the whole four-tuple: a busy
			// client then has all ports for each destination.
			intOption("IP_BIND_ADDRESS_NO_PORT", unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1))
		d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
	}
	if o.KeepAlive != (net.KeepAliveConfig{}) && !o.KeepAlive.Enable {
		d.KeepAlive = -1
	}
	if ns != nil || len(options) > 0 {
		d.Control = swapIn(ns, family(to.Addr()), options)
	}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, network(to.Addr()), to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

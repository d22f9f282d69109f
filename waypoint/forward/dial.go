package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// Origin is on whose behalf a connection is made; the backend's ztunnel is told
// for its records.
type Origin struct {
	// Client is the first client's address; the zero value is this waypoint.
	Client netip.AddrPort
	// TraceParent correlates records. Empty makes one.
	TraceParent string
	// Protocols are named where TLS is started (ALPN).
	Protocols []string
}

// Connection is one connection to a backend: a *net.TCPConn, a hbone.Stream, or
// a *tls.Conn where the service's settings start TLS.
type Connection struct {
	relay.End
	// Peer is who the backend proved to be; zero where it was reached plainly.
	Peer spiffe.ID
	// Local is our end's address.
	Local netip.AddrPort
}

// Dial connects to a backend for bytes that are not HTTP. Its error is a
// *ConnectError.
func (f *Forwarder) Dial(ctx context.Context, to *Endpoint, o Origin) (Connection, error) {
	timeout := f.config.ConnectTimeout
	if to.Settings.ConnectTimeout > 0 {
		timeout = to.Settings.ConnectTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := f.dial(ctx, to, o)
	if err == nil && to.TLS.On {
		var t *tls.Conn
		t, err = originate(ctx, c.Conn(to.Address), to, o.Protocols...)
		c.End = t
	}
	if err != nil {
		return Connection{}, &ConnectError{to.Address, err}
	}
	return c, nil
}

func (f *Forwarder) dial(ctx context.Context, to *Endpoint, o Origin) (Connection, error) {
	self := f.config.Self()
	if self == nil {
		return Connection{}, errNoSelf
	}
	if to.Workload.Network != self.Network {
		return Connection{}, fmt.Errorf("%s is in network %q: gateways between networks are not supported", to.Workload.UID, to.Workload.Network)
	}
	if to.Workload.Tunnel == mesh.TunnelHBONE {
		return f.tunnel(ctx, self, to, o)
	}
	c, err := f.plain(ctx, to)
	if err != nil {
		return Connection{}, err
	}
	end, ok := c.(relay.End)
	if !ok {
		c.Close()
		return Connection{}, fmt.Errorf("%T cannot half-close", c)
	}
	return Connection{End: end, Local: addrPort(c.LocalAddr())}, nil
}

// plain connects without a tunnel, by name where no address is known.
func (f *Forwarder) plain(ctx context.Context, to *Endpoint) (net.Conn, error) {
	if to.Address.Addr().IsValid() {
		return f.config.Connect(ctx, to.Address)
	}
	if to.Workload.Hostname == "" {
		return nil, errNoAddress
	}
	return f.DialName(ctx, to.Workload.Hostname, to.Address.Port())
}

var errNoAddress = errors.New("the workload has neither an address nor a hostname")

func (f *Forwarder) tunnel(ctx context.Context, self *mesh.Workload, to *Endpoint, o Origin) (Connection, error) {
	target := hbone.Target{
		Address: netip.AddrPortFrom(to.Address.Addr(), f.config.TunnelPort),
		Self:    self.Identity(), Accept: to.accept(), Workload: to.Workload.UID,
	}
	request := hbone.Request{Authority: to.Address.String(), Header: header(self, to, o)}
	s, _, peer, err := f.tunnels.Open(ctx, target, request)
	if errors.Is(err, hbone.ErrReset) {
		// A shared tunnel may have died unnoticed, as when its server was killed.
		s, _, peer, err = f.tunnels.Open(ctx, target, request)
	}
	if err != nil {
		return Connection{}, fmt.Errorf("by tunnel: %w", err)
	}
	return Connection{End: s, Peer: peer.ID, Local: peer.Local}, nil
}

// header is that of a CONNECT (dataplane spec 1.3). The waypoint speaks for
// itself: it is whom the backend's ztunnel sees.
func header(self *mesh.Workload, to *Endpoint, o Origin) map[string]string {
	client := o.Client
	if !client.IsValid() && len(self.Addresses) > 0 {
		client = netip.AddrPortFrom(self.Addresses[0], 0)
	}
	forwarded := `for="` + client.String() + `"`
	if to.Service != nil {
		forwarded += ";host=" + to.Service.Hostname
	}
	if o.TraceParent == "" {
		o.TraceParent = telemetry.NewTraceParent()
	}
	return map[string]string{
		hbone.HeaderBaggage:     telemetry.Baggage(self),
		hbone.HeaderForwarded:   forwarded,
		hbone.HeaderTraceparent: o.TraceParent,
	}
}

// DialName connects plainly to a server outside of the mesh.
func (f *Forwarder) DialName(ctx context.Context, host string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, f.config.ConnectTimeout)
	defer cancel()
	return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
}

// Conn makes a net.Conn of a connection.
func (c Connection) Conn(to netip.AddrPort) net.Conn {
	if s, ok := c.End.(hbone.Stream); ok {
		return hbone.NewConn(s, c.Local, to)
	}
	return c.End.(net.Conn)
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		p := tcp.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

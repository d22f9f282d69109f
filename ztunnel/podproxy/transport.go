package podproxy

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/fallback"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/hbone/h3"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/ztunnel/inbound"
)

// newDialer makes what makes tunnels: over HTTP/2, and over HTTP/3 where both ends
// have it so and the network lets it through.
func (p *Proxy) newDialer() *fallback.Dialer {
	var d *fallback.Dialer
	d = fallback.New(fallback.Config{
		H2: h2.NewDialer(h2.Config{Credentials: p.config.Credentials, Connect: p.connect, Tuning: p.config.Tuning}),
		H3: h3.NewDialer(h3.Config{
			Credentials: p.config.Credentials, Listen: p.socket, Tuning: p.tuningH3(),
			Silent: func(to hbone.Target, why error) { d.Silent(to, why) },
		}),
		Made: p.config.Transports.Made, Fallen: func(netip.Addr, error) { p.config.Transports.Blocked() },
		Logger: p.config.Logger,
	})
	return d
}

// tuningH3 is what HTTP/3 takes of the settings for tunnels.
func (p *Proxy) tuningH3() h3.Tuning {
	t := p.config.Tuning
	return h3.Tuning{
		MaxStreams: t.MaxStreams, HandshakeTimeout: t.HandshakeTimeout, PingInterval: t.PingInterval, PingTimeout: t.PingTimeout,
		Abused: t.Abused, Logger: t.Logger,
	}
}

// socket is one from which to is reached, bound to the pod's own address.
func (p *Proxy) socket(ctx context.Context, to netip.AddrPort) (net.PacketConn, error) {
	c, err := linux.DialUDP(ctx, p.ns, to, linux.DialOptions{Mark: p.config.Mark})
	if err != nil {
		return nil, err
	}
	from := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	c.Close()
	return linux.ListenUDP(ctx, p.ns, netip.AddrPortFrom(from, 0), linux.ListenOptions{Mark: p.config.Mark})
}

// overUDP is what serves tunnels over HTTP/3.
type overUDP struct {
	in *inbound.Inbound

	mu      sync.Mutex
	bound   chan struct{}  // nil: it is not served; closed when there will be no more servers
	servers []hbone.Server // one of each family, once there is a socket
}

// bindAgain is the pause between two attempts to have the port.
const bindAgain = time.Second

// serveUDP serves tunnels over HTTP/3 as soon as the port can be had, once the pod
// is to accept them. While an older proxy drains it has the port, and packets of
// its connections are its own; meanwhile tunnels are made over HTTP/2.
func (p *Proxy) serveUDP(w *mesh.Workload) {
	if w.Settings.Transport != mesh.TransportH3 {
		return
	}
	u := &p.overUDP
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bound != nil || p.accepting.Err() != nil {
		return
	}
	u.bound = make(chan struct{})
	families := []netip.Addr{netip.IPv4Unspecified()}
	if has, err := p.hasIPv6(); err != nil || has {
		families = append(families, netip.IPv6Unspecified())
	}
	p.serving.Go(func() {
		defer close(u.bound)
		for told := false; len(families) > 0; {
			c, err := linux.ListenUDP(p.accepting, p.ns, netip.AddrPortFrom(families[0], TunnelPort), linux.ListenOptions{Mark: p.config.Mark})
			if err == nil {
				families = families[1:]
				p.serveH3(c)
				continue
			}
			if p.accepting.Err() != nil {
				return
			}
			if !told {
				told = true
				p.config.Logger.Info("no tunnels over HTTP/3 until the port is free", "port", TunnelPort, "error", err)
			}
			select {
			case <-time.After(bindAgain):
			case <-p.accepting.Done():
				return
			}
		}
	})
}

func (p *Proxy) serveH3(c net.PacketConn) {
	in := p.overUDP.in
	s := h3.NewServer(h3.ServerConfig{
		Conn: c, Self: in.Self, Aliases: in.Aliases, Credentials: p.config.Credentials, Handler: in.Tunnel, Refused: in.Refused,
		Datagrams: true, Tuning: p.tuningH3(),
	})
	p.overUDP.mu.Lock()
	p.overUDP.servers = append(p.overUDP.servers, s)
	p.overUDP.mu.Unlock()
	p.serving.Go(func() {
		if err := s.Serve(p.cut); err != nil && p.cut.Err() == nil {
			p.config.Logger.Warn("tunnel server over HTTP/3 ended", "error", err)
		}
	})
}

func (p *Proxy) hasIPv6() (has bool, err error) {
	if p.ns == nil {
		return linux.HasIPv6(), nil
	}
	err = p.ns.Do(func() error { has = linux.HasIPv6(); return nil })
	return has, err
}

// drainTunnels lets tunnels end, of both transports. Nothing is accepted any more.
func (p *Proxy) drainTunnels() {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { p.tunnels.Drain(p.cut) })
	p.overUDP.mu.Lock()
	bound := p.overUDP.bound
	p.overUDP.mu.Unlock()
	if bound == nil {
		return // and will not be any more
	}
	<-bound
	for _, s := range p.overUDP.servers {
		all.Go(func() { s.Drain(p.cut) })
	}
}

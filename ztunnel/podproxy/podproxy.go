package podproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/fallback"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/hbone/pool"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel/capture"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/dns"
	"github.com/ambit-mesh/ambit/ztunnel/inbound"
	"github.com/ambit-mesh/ambit/ztunnel/outbound"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// The ports inside a pod (dataplane spec 0.1).
const (
	OutboundPort = 15001
	InboundPort  = 15006
	TunnelPort   = hbone.Port
)

// Config is what the proxies of a node have in common; every field without a
// zero value is required.
type Config struct {
	Store       *view.Store
	Credentials hbone.Credentials
	Recorder    *telemetry.Recorder
	// DryRuns is told what dry-run policies say. Nil: nobody is.
	DryRuns *telemetry.DryRuns
	// Decisions remembers connections for explanations. Nil: nobody does.
	Decisions *decision.Ring
	// Tracer makes spans. Nil makes none.
	Tracer *tracing.Tracer
	Logger *slog.Logger
	// Mark is on every packet the proxy sends; 0 is none.
	Mark int
	// NoReusePort keeps an older and a newer proxy from listening side by side.
	NoReusePort bool
	// NoOriginalSource lets applications see the proxy's address instead of
	// their client's.
	NoOriginalSource bool
	// KeepAlive is for captured and dialled connections. The zero value is
	// linux.KeepAlive.
	KeepAlive net.KeepAliveConfig
	// MaxCaptured bounds the connections of a pod that were captured on their way
	// out, and those on their way in; further ones wait. Zero: 30,000, which is
	// more than a client has ports for.
	MaxCaptured int
	// Tuning is for tunnels.
	Tuning h2.Tuning
	// Transports counts the tunnels that are made. Nil counts nothing.
	Transports *telemetry.Transports
	// DatagramDrops counts the datagrams that are not carried. Nil counts nothing.
	DatagramDrops *telemetry.DatagramDrops
	// Names are how names are found: those of programs' DNS queries, and those
	// of endpoints that are known by name only.
	Names Names
	// IdleTunnel is how long a tunnel without streams is kept. Zero is the
	// pool's default.
	IdleTunnel time.Duration
	// IdleFlow is how long a flow of UDP lasts in which nobody sends anything. Zero is
	// the defaults of datagrams.Config.
	IdleFlow time.Duration
	// MaxTunnelStreams bounds the streams of a client tunnel. Zero is the
	// pool's default.
	MaxTunnelStreams int
}

// Proxy serves one pod.
type Proxy struct {
	config Config
	pod    zds.Pod
	ns     *linux.NetNS
	live   connections.Set

	// bound is the record that was last found to be this pod's.
	bound atomic.Pointer[mesh.Workload]

	// lastLocal is the pod's last record, for connections that outlive it; only
	// Follow uses it.
	lastLocal *mesh.Workload

	captured []*capture.Server // outbound and plaintext inbound
	names    *dns.Server       // nil listens for none
	tunnels  hbone.Server
	overUDP  overUDP
	udp      udp
	dialer   *fallback.Dialer
	pool     *pool.Pool

	accepting context.Context // ends with StopAccepting
	noMore    context.CancelFunc

	cut     context.Context // ends everything
	cancel  context.CancelCauseFunc
	serving sync.WaitGroup // the tunnel server
	drained chan struct{}  // closed when the tunnel server has drained
	stop    sync.Once
}

// Start listens inside ns, or here if ns is nil, and serves pod. Of the
// listeners all or none are left open.
func Start(c Config, pod zds.Pod, ns *linux.NetNS) (*Proxy, error) {
	if c.KeepAlive == (net.KeepAliveConfig{}) {
		c.KeepAlive = linux.KeepAlive
	}
	if c.MaxCaptured == 0 {
		c.MaxCaptured = 30_000
	}
	p := &Proxy{config: c, pod: pod, ns: ns, drained: make(chan struct{})}
	p.config.Logger = c.Logger.With("pod", pod.String())
	if p.config.Tuning.Logger == nil {
		p.config.Tuning.Logger = p.config.Logger
	}
	listeners, err := p.listen()
	if err != nil {
		return nil, err
	}
	p.cut, p.cancel = context.WithCancelCause(context.Background())
	p.accepting, p.noMore = context.WithCancel(p.cut)
	p.serve(listeners)
	return p, nil
}

// listeners are in the order of their ports.
type listeners [3]*net.TCPListener

func (p *Proxy) listen() (l listeners, err error) {
	wildcard := netip.IPv6Unspecified()
	probe := func() error {
		if !linux.HasIPv6() {
			wildcard = netip.IPv4Unspecified()
		}
		// Hands queued connections over when one of two proxies leaves; older
		// kernels lack it, and a read-only /proc/sys refuses it.
		linux.WriteSysctl("net.ipv4.tcp_migrate_req", "1")
		return nil
	}
	if p.ns != nil {
		err = p.ns.Do(probe)
	} else {
		err = probe()
	}
	options := linux.ListenOptions{
		Mark: p.config.Mark, ReusePort: !p.config.NoReusePort, Transparent: !p.config.NoOriginalSource, KeepAlive: p.config.KeepAlive,
	}
	for i, port := range []uint16{OutboundPort, InboundPort, TunnelPort} {
		if err == nil {
			l[i], err = linux.ListenTCP(context.Background(), p.ns, netip.AddrPortFrom(wildcard, port), options)
		}
	}
	if err != nil {
		for _, one := range l {
			if one != nil {
				one.Close()
			}
		}
		return l, fmt.Errorf("serving %s: %w", p.pod, err)
	}
	return l, nil
}

func (p *Proxy) serve(l listeners) {
	in := inbound.New(inbound.Config{
		Store: p.config.Store, Local: p.local, Dial: p.dialApplication, Connections: &p.live, Cut: p.cut, Tracer: p.config.Tracer,
		Recorder: p.config.Recorder, DryRuns: p.config.DryRuns, Decisions: p.config.Decisions,
		Datagrams: p.plainly(), Drops: p.config.DatagramDrops, Accepting: p.accepting,
	})
	p.dialer = p.newDialer()
	p.pool = pool.New(pool.Config{
		Dialer:     p.dialer,
		MaxStreams: p.config.MaxTunnelStreams, MaxIdle: p.config.IdleTunnel, Logger: p.config.Logger,
	})
	out := outbound.New(outbound.Config{
		Store: p.config.Store, Local: p.local, Dial: p.dialPlain, Lookup: dns.NewLookup(p.config.Names.Servers, p.dialResolver).Addresses,
		Tunnels: p.pool, Connections: &p.live, Cut: p.cut, Tracer: p.config.Tracer,
		Recorder: p.config.Recorder, Drops: p.config.DatagramDrops, Decisions: p.config.Decisions,
	})
	p.tunnels = h2.NewServer(h2.ServerConfig{
		Listener: l[2], Self: in.Self, Aliases: in.Aliases, Credentials: p.config.Credentials, Handler: in.Tunnel, Refused: in.Refused,
		Datagrams: true, Tuning: p.config.Tuning,
	})
	p.captured = []*capture.Server{
		capture.Serve(l[0], out.Handle, p.config.MaxCaptured, p.config.Logger),
		capture.Serve(l[1], in.Plain, p.config.MaxCaptured, p.config.Logger),
	}
	p.overUDP.in, p.udp.in, p.udp.out = in, in, out
	p.names = p.serveNames()
	p.serving.Go(func() {
		if err := p.tunnels.Serve(p.cut); err != nil && p.cut.Err() == nil {
			p.config.Logger.Warn("tunnel server ended", "error", err)
		}
	})
}

func (p *Proxy) dialPlain(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	return linux.DialTCP(ctx, p.ns, to, linux.DialOptions{Mark: p.config.Mark, KeepAlive: p.config.KeepAlive})
}

// connect is for tunnels, which have pings of their own.
func (p *Proxy) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return linux.DialTCP(ctx, p.ns, to, linux.DialOptions{Mark: p.config.Mark, KeepAlive: p.config.KeepAlive})
}

func (p *Proxy) dialApplication(ctx context.Context, to netip.AddrPort, source netip.Addr) (*net.TCPConn, error) {
	if p.config.NoOriginalSource {
		source = netip.Addr{}
	}
	return linux.DialTCP(ctx, p.ns, to, linux.DialOptions{Mark: p.config.Mark, Source: source, KeepAlive: p.config.KeepAlive})
}

// Pod is whom this proxy serves.
func (p *Proxy) Pod() zds.Pod { return p.pod }

// Reach makes a tunnel of its own and ends it: an error is why the pod could
// not send anything to t.
func (p *Proxy) Reach(ctx context.Context, t hbone.Target) error {
	tunnel, err := p.dialer.Dial(ctx, t)
	if err != nil {
		return err
	}
	return tunnel.Close()
}

// Tunnels is how many tunnels to others the pod has.
func (p *Proxy) Tunnels() int { return p.pool.Held() }

// Connections lists the live connections.
func (p *Proxy) Connections() []connections.Info { return p.live.List() }

// Follow brings the proxy up to date with a view: connections that are no
// longer allowed are cut, and tunnels to workloads that are no longer there
// are retired, as are those made with a certificate that has been renewed. It
// says how many connections were cut. One goroutine calls it.
func (p *Proxy) Follow(v *view.View, renewed map[spiffe.ID]bool) int {
	p.pool.Forget(func(t hbone.Target) bool {
		return renewed[t.Self] || t.Workload != "" && !behind(v.Workload(t.Workload), t)
	})
	if w := p.record(v); w != nil {
		p.lastLocal = w
		p.serveUDP(w)
		p.captureDatagrams(w)
	}
	return p.live.Rejudge(func(c policy.Connection) policy.Verdict { return route.Judge(v, p.lastLocal, c) }) +
		p.live.Review(func(i connections.Info) string { return route.Outlawed(v, p.lastLocal, i.Original) })
}

// behind says whether w is still what a tunnel was made to.
func behind(w *mesh.Workload, t hbone.Target) bool {
	if w == nil {
		return false
	}
	for _, a := range w.Addresses {
		if a.Unmap() == t.Address.Addr().Unmap() {
			return true
		}
	}
	return false
}

// StopAccepting closes the listeners; what was accepted goes on, and tunnels
// are told to go away once their streams have ended.
func (p *Proxy) StopAccepting() {
	p.stop.Do(func() {
		for _, s := range p.captured {
			if err := s.StopAccepting(); err != nil {
				p.config.Logger.Warn("no longer accepting", "error", err)
			}
		}
		if p.names != nil {
			p.names.StopAccepting()
		}
		p.noMore()
		p.serving.Go(func() {
			defer close(p.drained)
			var all sync.WaitGroup
			defer all.Wait()
			all.Go(p.drainDatagrams)
			all.Go(p.drainTunnels)
		})
	})
}

// Drain stops accepting, waits for every connection to end, and cuts those
// that are left when ctx is done.
func (p *Proxy) Drain(ctx context.Context) error {
	p.StopAccepting()
	stop := context.AfterFunc(ctx, func() { p.cancel(context.Cause(ctx)) })
	defer stop()
	var errs []error
	for _, s := range p.captured {
		errs = append(errs, s.Drain(p.cut))
	}
	if p.names != nil {
		p.names.Drain(p.cut)
	}
	<-p.drained
	p.cancel(nil)
	p.serving.Wait()
	errs = append(errs, p.pool.Close())
	p.dialer.Close()
	return errors.Join(errs...)
}

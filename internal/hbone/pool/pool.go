// Package pool shares client tunnels of HBONE between streams: one dial at a
// time for each target, whose result all who wait for it share; tunnels that
// were full are used again; those that are idle, old, draining or lead to a
// workload that is no more are retired, which lets their streams end.
//
// It refuses to know a transport, and to choose targets. ztunnel has one pool
// for each pod, as tunnels of different pods are never shared (dataplane spec
// 1.8); the waypoint has one.
package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// Config is what a Pool needs.
type Config struct {
	// Dialer is required.
	Dialer hbone.Dialer
	// MaxStreams is how many streams are put on one tunnel, if its peer allows
	// as many. Zero: as many as the tunnel's own capacity.
	MaxStreams int
	// MaxPerTarget bounds the tunnels to one target. Zero: 128.
	MaxPerTarget int
	// MaxTotal bounds all tunnels. Zero: 4096.
	MaxTotal int
	// MaxIdle is how long a tunnel without streams is kept. Zero: 5 minutes.
	MaxIdle time.Duration
	// MaxAge is how long a tunnel is offered: certificates are only verified when
	// a tunnel is made. Up to a tenth is taken off by chance. Zero: 1 hour.
	MaxAge time.Duration
	// Logger receives what happens to tunnels. Nil: nothing is logged.
	Logger *slog.Logger
}

// ErrFull is a bound of the pool reached.
var ErrFull = errors.New("tunnel pool is full")

// Pool shares tunnels.
type Pool struct {
	cfg     Config
	log     *slog.Logger
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	working sync.WaitGroup // dials and retirements

	mu     sync.Mutex
	groups map[key]*group
	total  int // tunnels offered or being dialled
	ending int // tunnels retired that have not ended
	closed bool
	sweep  *time.Timer // armed while there are tunnels
	stats  Stats
}

// Stats count what a pool did since its beginning.
type Stats struct {
	// Handshakes are the tunnels made, Failed the dials that made none.
	Handshakes, Failed uint64
	// Streams are the openings that were given a tunnel.
	Streams uint64
	// Retired are the tunnels no longer offered.
	Retired uint64
}

// New makes a pool.
func New(cfg Config) *Pool {
	cfg.MaxPerTarget = cmp.Or(cfg.MaxPerTarget, 128)
	cfg.MaxTotal = cmp.Or(cfg.MaxTotal, 4096)
	cfg.MaxIdle = cmp.Or(cfg.MaxIdle, 5*time.Minute)
	cfg.MaxAge = cmp.Or(cfg.MaxAge, time.Hour)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Pool{cfg: cfg, log: cfg.Logger.With("component", "hbone-pool"), groups: map[key]*group{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// attempts bounds how often one Open may meet a tunnel that just became full or
// began to drain.
const attempts = 64

// Open opens a stream to t in a tunnel that exists or is made. Nothing has been
// sent to a server if the error is one of making the tunnel.
func (p *Pool) Open(ctx context.Context, t hbone.Target, r hbone.Request) (hbone.Stream, hbone.Response, hbone.Peer, error) {
	k := keyOf(t)
	var full hbone.Tunnel
	for range attempts {
		m, err := p.member(ctx, k, t, full)
		if err != nil {
			return nil, hbone.Response{}, hbone.Peer{}, err
		}
		s, resp, err := m.tunnel.Open(ctx, r)
		if !errors.Is(err, hbone.ErrDraining) && !errors.Is(err, hbone.ErrSilent) {
			return s, resp, m.tunnel.Peer(), err
		}
		full = m.tunnel
	}
	return nil, hbone.Response{}, hbone.Peer{}, fmt.Errorf("opening stream to %s: no tunnel takes it: %w", t.Address, hbone.ErrDraining)
}

// member gives a tunnel with room, dialling one if need be. Not again full,
// which had none a moment ago.
func (p *Pool) member(ctx context.Context, k key, t hbone.Target, full hbone.Tunnel) (*member, error) {
	for {
		m, d, err := p.pick(k, t, full)
		if m != nil || err != nil {
			return m, err
		}
		select {
		case <-d.done:
			if d.err != nil {
				return nil, d.err
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for a tunnel to %s: %w", t.Address, ctx.Err())
		}
	}
}

// pick gives a tunnel with room, or the dial to wait for.
func (p *Pool) pick(k key, t hbone.Target, full hbone.Tunnel) (*member, *dial, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, fmt.Errorf("opening tunnel to %s: %w", t.Address, hbone.ErrDraining)
	}
	g := p.groups[k]
	if g == nil {
		g = &group{target: t}
		p.groups[k] = g
	}
	now := time.Now()
	p.dropLocked(k, func(m *member) bool { return m.over() || now.After(m.until) })
	for _, m := range g.members {
		if m.tunnel != full && m.tunnel.Streams() < p.room(m.tunnel) {
			m.used = now
			p.stats.Streams++
			return m, nil, nil
		}
	}
	if g.dial != nil {
		return nil, g.dial, nil
	}
	if err := p.admitLocked(g); err != nil {
		p.tidyLocked(k)
		return nil, nil, fmt.Errorf("opening tunnel to %s: %w", t.Address, err)
	}
	return nil, p.dialLocked(k, g), nil
}

// room is how many streams a tunnel is given.
func (p *Pool) room(t hbone.Tunnel) int {
	if p.cfg.MaxStreams > 0 {
		return min(p.cfg.MaxStreams, t.Capacity())
	}
	return t.Capacity()
}

// admitLocked checks the bounds; an idle tunnel makes room for one needed.
func (p *Pool) admitLocked(g *group) error {
	if len(g.members) >= p.cfg.MaxPerTarget {
		return fmt.Errorf("%w: %d tunnels to it", ErrFull, len(g.members))
	}
	if p.total >= p.cfg.MaxTotal && !p.dropIdlestLocked() {
		return fmt.Errorf("%w: %d tunnels", ErrFull, p.total)
	}
	return nil
}

// Forget retires the tunnels, also those being dialled, to targets that match:
// a workload was removed or changed.
func (p *Pool) Forget(match func(hbone.Target) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, g := range p.groups {
		if match(g.target) {
			if g.dial != nil {
				g.dial.forgotten = true
			}
			p.dropLocked(k, func(*member) bool { return true })
		}
		p.tidyLocked(k)
	}
}

// Handshakes is how many tunnels were made since the beginning.
func (p *Pool) Handshakes() uint64 { return p.Stats().Handshakes }

// Stats gives the counters.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Held is how many tunnels there are: those being dialled, those offered, and
// those retired of which streams go on.
func (p *Pool) Held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total + p.ending
}

// Status describes one tunnel for an administrator.
type Status struct {
	Target            hbone.Target
	Peer              hbone.Peer
	Streams, Capacity int
	Since, Used       time.Time
}

// List gives the tunnels that are offered.
func (p *Pool) List() (list []Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.groups {
		for _, m := range g.members {
			list = append(list, Status{
				Target: g.target, Peer: m.tunnel.Peer(), Streams: m.tunnel.Streams(), Capacity: p.room(m.tunnel),
				Since: m.born, Used: m.used,
			})
		}
	}
	return list
}

// Drain offers no tunnel any more, and returns when all streams have ended, or
// cuts them when ctx is done.
func (p *Pool) Drain(ctx context.Context) error {
	p.stop()
	ended := make(chan struct{})
	go func() { p.working.Wait(); close(ended) }() // ends: cancel ends all work
	defer func() { p.cancel(); <-ended }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("draining tunnels: %w", ctx.Err())
	}
}

// Close cuts everything and waits for it. It may be called twice.
func (p *Pool) Close() error {
	p.stop()
	p.cancel()
	p.working.Wait()
	return nil
}

// stop retires everything.
func (p *Pool) stop() {
	p.mu.Lock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	p.mu.Unlock()
	p.Forget(func(hbone.Target) bool { return true })
}

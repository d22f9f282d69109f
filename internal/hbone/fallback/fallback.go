// Package fallback makes each tunnel over the transport that its target offers
// and the network lets through: over HTTP/3 where it is offered, over HTTP/2 if
// that does not get through in time. It owns what is known of addresses at
// which HTTP/3 was in vain: for them new tunnels are made over HTTP/2 without
// delay, while HTTP/3 is tried beside from time to time.
//
// It refuses to know a transport, and never tries another one after a peer has
// shown who it is: an identity that is refused is refused.
package fallback

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// Config is what a Dialer needs.
type Config struct {
	// H2 makes tunnels over HTTP/2. Required.
	H2 hbone.Dialer
	// H3 makes them over HTTP/3. Required.
	H3 hbone.Dialer
	// Patience is how long HTTP/3 is tried alone: the most that a new connection
	// waits because it is blocked. Zero: 250 ms.
	Patience time.Duration
	// Retry is how long an address is taken for blocked before HTTP/3 is tried
	// again. Zero: a minute.
	Retry time.Duration
	// MaxBlocked bounds the addresses that are remembered; beyond it the one that
	// was found blocked first is forgotten. Zero: 10,000.
	MaxBlocked int
	// Made is told of each tunnel, and whether it is over HTTP/3. Nil: nobody is.
	Made func(h3 bool)
	// Fallen is told of each address that is found blocked, and why. Nil: nobody is.
	Fallen func(at netip.Addr, why error)
	// Logger is told the same. Nil: nothing is logged.
	Logger *slog.Logger
}

// Dialer is the two transports as one.
type Dialer struct {
	cfg Config

	mu      sync.Mutex
	blocked map[netip.Addr]*block
	probing sync.WaitGroup
	ctx     context.Context // of probes; ends with Close
	cancel  context.CancelFunc
}

var _ hbone.Dialer = (*Dialer)(nil)

// block is what is known of an address at which HTTP/3 was in vain.
type block struct {
	until   time.Time // it is not tried
	probing bool
	since   time.Time
}

// New makes a dialer. Close ends its probes.
func New(cfg Config) *Dialer {
	cfg.Patience = cmp.Or(cfg.Patience, 250*time.Millisecond)
	cfg.Retry = cmp.Or(cfg.Retry, time.Minute)
	cfg.MaxBlocked = cmp.Or(cfg.MaxBlocked, 10_000)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Logger = cfg.Logger.With("component", "hbone-fallback")
	d := &Dialer{cfg: cfg, blocked: map[netip.Addr]*block{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Dial implements hbone.Dialer.
func (d *Dialer) Dial(ctx context.Context, t hbone.Target) (hbone.Tunnel, error) {
	r := d.dial(ctx, t)
	if r.err == nil && d.cfg.Made != nil {
		d.cfg.Made(r.h3)
	}
	return r.tunnel, r.err
}

func (d *Dialer) dial(ctx context.Context, t hbone.Target) (r made) {
	r.h3 = t.Transport == hbone.OnlyH3
	switch {
	case r.h3:
		r.tunnel, r.err = d.cfg.H3.Dial(ctx, t)
	case t.Transport == hbone.PreferH3 && !d.isBlocked(t):
		return d.race(ctx, t)
	default:
		r.tunnel, r.err = d.cfg.H2.Dial(ctx, t)
	}
	return r
}

// made is the outcome of a dial.
type made struct {
	tunnel hbone.Tunnel
	err    error
	h3     bool
}

// race tries HTTP/3, and HTTP/2 too once that has failed or lasts. The first
// tunnel wins.
func (d *Dialer) race(ctx context.Context, t hbone.Target) made {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan made) // what comes after the winner is closed by lose
	try := func(dialer hbone.Dialer, h3 bool) {
		tunnel, err := dialer.Dial(ctx, t)
		select {
		case results <- made{tunnel, err, h3}:
		case <-ctx.Done():
			lose(tunnel)
		}
	}
	go try(d.cfg.H3, true)
	running, h2Began := 1, false
	patience := time.NewTimer(d.cfg.Patience)
	defer patience.Stop()
	beginH2 := func() {
		if !h2Began {
			h2Began = true
			running++
			go try(d.cfg.H2, false)
		}
	}
	var failed [2]error // of HTTP/2, of HTTP/3
	for {
		select {
		case <-ctx.Done():
			return made{err: fmt.Errorf("opening tunnel to %s: %w", t.Address, ctx.Err())}
		case <-patience.C:
			beginH2()
		case r := <-results:
			running--
			switch {
			case r.err == nil && r.h3:
				return r
			case r.err == nil:
				d.block(t, cmp.Or(failed[1], errSlow))
				return r
			case refused(r.err):
				return r
			case r.h3:
				failed[1] = r.err
				beginH2()
			default:
				failed[0] = r.err
			}
			if running == 0 {
				return made{err: fmt.Errorf("%w; over HTTP/3: %w", failed[0], failed[1])}
			}
		}
	}
}

var errSlow = errors.New("no answer over UDP in time")

// refused is an end of a handshake that another transport must not undo.
func refused(err error) bool {
	_, ok := errors.AsType[*hbone.PeerError](err)
	return ok
}

// lose closes the tunnel that came second.
func lose(tunnel hbone.Tunnel) {
	if tunnel != nil {
		tunnel.Close()
	}
}

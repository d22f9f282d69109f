package pool

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// key is a Target made comparable.
type key struct {
	address  netip.AddrPort
	self     spiffe.ID
	accept   string
	workload string
	over     hbone.Transport
}

func keyOf(t hbone.Target) key {
	k := key{address: t.Address, self: t.Self, workload: t.Workload, over: t.Transport}
	if len(t.Accept) == 1 {
		k.accept = t.Accept[0].String()
		return k
	}
	var b strings.Builder
	for _, id := range t.Accept {
		b.WriteString(id.String())
		b.WriteByte(' ') // is in no identity
	}
	k.accept = b.String()
	return k
}

// group is everything to one target, under Pool.mu.
type group struct {
	target  hbone.Target
	members []*member
	dial    *dial // the one that runs
}

// member is a tunnel that is offered.
type member struct {
	tunnel     hbone.Tunnel
	born, used time.Time
	until      time.Time // it is offered
}

// over reports whether the tunnel takes no new streams.
func (m *member) over() bool {
	select {
	case <-m.tunnel.Done():
		return true
	default:
		return false
	}
}

// dial is one attempt, shared by all who wait for it.
type dial struct {
	done      chan struct{}
	err       error // set before done is closed
	forgotten bool  // under Pool.mu: the result must not be used
}

// dialLocked begins a dial. It is nobody's own: it goes on when who asked first
// gives up, bounded by the dialer's timeouts.
func (p *Pool) dialLocked(k key, g *group) *dial {
	d := &dial{done: make(chan struct{})}
	g.dial = d
	p.total++
	p.working.Go(func() {
		tunnel, err := p.cfg.Dialer.Dial(p.ctx, g.target)
		p.dialled(k, g, d, tunnel, err)
	})
	return d
}

func (p *Pool) dialled(k key, g *group, d *dial, tunnel hbone.Tunnel, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(d.done)
	g.dial = nil
	if err != nil {
		d.err = err
		p.total--
		p.stats.Failed++
		p.tidyLocked(k)
		return
	}
	p.stats.Handshakes++
	now := time.Now()
	age := p.cfg.MaxAge - time.Duration(rand.Int64N(int64(p.cfg.MaxAge/10)+1)) // not all at once
	m := &member{tunnel: tunnel, born: now, used: now, until: now.Add(age)}
	if d.forgotten || p.closed {
		p.retireLocked(m)
		p.tidyLocked(k)
		return
	}
	p.log.Debug("tunnel made", "target", g.target.Address, "peer", tunnel.Peer().ID)
	g.members = append(g.members, m)
	p.armLocked()
}

// dropLocked retires the members of a group that match.
func (p *Pool) dropLocked(k key, match func(*member) bool) {
	g := p.groups[k]
	kept := g.members[:0]
	for _, m := range g.members {
		if match(m) {
			p.retireLocked(m)
		} else {
			kept = append(kept, m)
		}
	}
	clear(g.members[len(kept):])
	g.members = kept
}

// tidyLocked forgets a group with nothing in it.
func (p *Pool) tidyLocked(k key) {
	if g := p.groups[k]; g != nil && len(g.members) == 0 && g.dial == nil {
		delete(p.groups, k)
	}
}

// retireLocked lets the streams of a tunnel end, and closes it then or with the
// pool.
func (p *Pool) retireLocked(m *member) {
	p.total--
	p.ending++
	p.stats.Retired++
	p.working.Go(func() {
		if err := m.tunnel.Drain(p.ctx); err != nil {
			p.log.Debug("tunnel cut", "peer", m.tunnel.Peer().ID, "err", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ending--
	})
}

// dropIdlestLocked retires the tunnel that has been without streams for longest.
func (p *Pool) dropIdlestLocked() bool {
	var in key
	var idlest *member
	for k, g := range p.groups {
		for _, m := range g.members {
			if m.tunnel.Streams() == 0 && (idlest == nil || m.used.Before(idlest.used)) {
				in, idlest = k, m
			}
		}
	}
	if idlest == nil {
		return false
	}
	p.dropLocked(in, func(m *member) bool { return m == idlest })
	p.tidyLocked(in)
	return true
}

// armLocked plans the next look at idle tunnels.
func (p *Pool) armLocked() {
	if p.sweep == nil {
		p.sweep = time.AfterFunc(p.cfg.MaxIdle/4, p.sweepIdle)
	}
}

// sweepIdle retires what nobody has used for long.
func (p *Pool) sweepIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep = nil
	if p.closed {
		return
	}
	now := time.Now()
	for k := range p.groups {
		p.dropLocked(k, func(m *member) bool {
			if m.tunnel.Streams() > 0 {
				m.used = now
			}
			return m.over() || now.Sub(m.used) >= p.cfg.MaxIdle || now.After(m.until)
		})
		p.tidyLocked(k)
	}
	if len(p.groups) > 0 {
		p.armLocked()
	}
}

package balance

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/circuit"
)

// picker is one choice in the making.
type picker struct {
	group  *group
	roster *roster
	query  Query
	now    time.Time
	// panicking ignores ejections.
	panicking bool
	probe     bool
}

// pick chooses a candidate, nil for none.
func (p *picker) pick() *candidate {
	if p.roster.ready == 0 {
		return nil
	}
	p.panicking = p.unwell()
	if c := p.pinned(); c != nil {
		return c
	}
	if c := p.probed(); c != nil {
		return c
	}
	first := p.tier()
	if c := p.within(first); c != nil {
		return c
	}
	for i := range p.roster.tiers {
		if i == first {
			continue
		}
		if c := p.within(i); c != nil {
			return c
		}
	}
	return nil
}

// why is why pick found none.
func (p *picker) why() Why {
	if p.roster.ready > 0 {
		return WhyTried
	}
	return p.roster.why
}

// unwell reports whether too few are well for ejections to count.
func (p *picker) unwell() bool {
	known, well := uint64(0), uint64(0)
	for _, t := range p.roster.tiers {
		known += t.known
		well += t.well.Load()
	}
	return well == 0 || 100*well < uint64(max(0, p.roster.outlier.MinHealthPercent))*known
}

// pinned is the session's endpoint if it may be used.
func (p *picker) pinned() *candidate {
	if p.query.Pin == "" {
		return nil
	}
	c := p.roster.byUID()[p.query.Pin]
	if c == nil || p.query.avoids(c.workload.UID) {
		return nil
	}
	if p.panicking || c.endpoint.share.Load() > 0 || p.mayProbe(c) {
		return c
	}
	return nil
}

// tier chooses a tier: the nearest, or the next where the nearest is not well
// enough to take all.
func (p *picker) tier() int {
	tiers := p.roster.tiers
	if len(tiers) == 1 {
		return 0
	}
	at, sum := rand.Float64(), 0.0
	for i, t := range tiers {
		if sum += p.health(t); at < sum {
			return i
		}
	}
	at = rand.Float64() * sum // all together are not well enough: share by how well they are
	for i, t := range tiers {
		if at -= p.health(t); at < 0 {
			return i
		}
	}
	return 0
}

// spare is how much more than its part a group can bear: 1.4 times, so that
// 5 of 7 carry everything.
const spare = 1.4

func (p *picker) health(t *tier) float64 {
	well := t.well.Load()
	if p.panicking {
		well = t.sum
	}
	if t.known == 0 || well == 0 {
		return 0
	}
	return min(1, spare*float64(well)/float64(t.known))
}

// within chooses in a tier.
func (p *picker) within(i int) *candidate {
	t := p.roster.tiers[i]
	if len(t.members) == 0 {
		return nil
	}
	b := &p.query.Settings.Balancer
	switch b.Kind {
	case mesh.BalanceRoundRobin:
		return p.drawn(t, p.nextTurn)
	case mesh.BalanceRandom:
		return p.drawn(t, (*tier).draw)
	case mesh.BalanceHash:
		return p.hashed(t)
	case mesh.BalanceOriginal:
		if c := p.original(t); c != nil {
			return c
		}
	case mesh.BalanceLeast:
	}
	return p.least(t)
}

func (p *picker) nextTurn(t *tier) *candidate { return t.turn(p.group.turn.Add(1)) }

// draws is how often chance is asked before every member is looked at.
const draws = 8

// drawn takes the first of some draws that is accepted.
func (p *picker) drawn(t *tier, draw func(*tier) *candidate) *candidate {
	for range draws {
		if c := draw(t); p.accepts(c) {
			return c
		}
	}
	return p.scan(t)
}

// least prefers the less busy and faster of two.
func (p *picker) least(t *tier) *candidate {
	a := p.drawn(t, (*tier).draw)
	if a == nil || len(t.members) == 1 {
		return a
	}
	for range draws {
		b := t.draw()
		if b == a || !p.accepts(b) {
			continue
		}
		if rand.Float64() < preferred(a.endpoint, b.endpoint, p.now) {
			return a
		}
		return b
	}
	return a
}

// scan looks at every member from a random one on: first for one with its
// whole share, then for any that is not ejected.
func (p *picker) scan(t *tier) *candidate {
	if len(t.members) == 0 {
		return nil
	}
	start := rand.IntN(len(t.members))
	var found *candidate
	for i := range t.members {
		c := &t.members[(start+i)%len(t.members)]
		if p.query.avoids(c.workload.UID) {
			continue
		}
		switch share := c.endpoint.share.Load(); {
		case share == circuit.Whole:
			return c
		case found == nil && (share > 0 || p.panicking):
			found = c
		}
	}
	return found
}

// accepts reports whether a candidate that was drawn is taken: a share that is
// not whole is a chance.
func (p *picker) accepts(c *candidate) bool {
	share := p.share(c)
	return (share >= circuit.Whole || rand.Uint32N(circuit.Whole) < share) && !p.query.avoids(c.workload.UID)
}

// share is what a candidate gets of its part, in thousandths.
func (p *picker) share(c *candidate) uint32 {
	share := c.endpoint.share.Load()
	if p.panicking {
		share = circuit.Whole
	}
	if warm := p.query.Settings.Balancer.Warmup; warm > 0 && !c.endpoint.veteran {
		share = uint32(float64(share) * warmth(p.now.Sub(c.endpoint.born), warm))
	}
	return share
}

// warmth grows from a tenth to one.
func warmth(age, warmup time.Duration) float64 {
	return min(1, 0.1+0.9*float64(age)/float64(warmup))
}

// original is the endpoint that the client dialled.
func (p *picker) original(t *tier) *candidate {
	for i := range t.members {
		if c := &t.members[i]; c.at == p.query.Original && p.accepts(c) {
			return c
		}
	}
	return nil
}

// The bound of consistent hashing: the mean times overload, at least boundLeast.
const (
	overload   = 1.25
	boundLeast = 10
)

// hashed takes the first member from the key's place on the ring that is
// accepted and not overloaded; the first accepted, if all are.
func (p *picker) hashed(t *tier) *candidate {
	var key string
	ok := p.query.Hash != nil
	if ok {
		key, ok = p.query.Hash(p.query.Settings.Balancer.Hash)
	}
	if !ok {
		return p.drawn(t, (*tier).draw)
	}
	h := hash(key)
	bound := max(boundLeast, int64(math.Ceil(overload*float64(p.group.inFlight.Load())/float64(len(t.members)))))
	var busy *candidate
	c := t.ring().walk(h, func(c *candidate) bool {
		switch {
		case p.query.avoids(c.workload.UID):
			return false
		case c.endpoint.share.Load() == 0 && !p.panicking:
			return p.mayProbe(c)
		case uint32(mix(h)%circuit.Whole) >= p.share(c):
			return false // a ramping member gets its keys back one by one
		case c.endpoint.inFlight.Load() < bound:
			return true
		case busy == nil:
			busy = c
		}
		return false
	})
	switch {
	case c != nil:
		return c
	case busy != nil:
		return busy
	}
	return p.scan(t)
}

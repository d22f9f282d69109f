// Package door bounds what one address may have of a server of tunnels, and
// counts and logs who is turned away or cut off for it. It refuses to know a
// transport: hbone/h2 and hbone/h3 ask it.
package door

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// maxIdleVisitors is how many addresses without connections are remembered before
// those that have been quiet are forgotten.
const maxIdleVisitors = 4096

// Door bounds what one address may have of a server: handshakes at once, tunnels,
// and connections per second. An honest peer makes a handful and keeps them, and
// has each carry a hundred streams. Who asks for more is turned away at once, at
// the price of an accept, so that others find a place.
type Door struct {
	handshakes, tunnels int // of one address
	rate                float64

	mu       sync.Mutex
	visitors map[netip.Addr]*visitor
	pending  int // handshakes of all
}

// visitor is one address.
type visitor struct {
	handshakes []*Visit // the oldest first
	tunnels    int      // includes the handshakes
	rate       Meter
}

// Visit is a connection that was let in, until it is Settled and has Left.
type Visit struct {
	door  *Door
	of    *visitor
	yield func() // nil: it cannot, or has been asked to
}

// New bounds the handshakes at once, the tunnels, those in their handshake
// included, and the connections per second of one address.
func New(handshakes, tunnels, rate int) *Door {
	return &Door{handshakes: handshakes, tunnels: tunnels, rate: float64(rate), visitors: map[netip.Addr]*visitor{}}
}

// Enter lets a connection in, or says why not. It is asked to yield if its
// handshake is to make room for another; nil never is. What is let in is Settled
// once, and after that has Left.
func (d *Door) Enter(from netip.Addr, now time.Time, yield func()) (*Visit, Abuse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitors[from]
	if v == nil {
		d.tidyLocked(now)
		v = &visitor{rate: NewMeter(2*d.rate, d.rate)}
		d.visitors[from] = v
	}
	v.rate.refill(now)
	switch {
	case v.rate.tokens < 1:
		return nil, Rate
	case len(v.handshakes) >= d.handshakes:
		return nil, Handshakes
	case v.tunnels >= d.tunnels:
		return nil, Connections
	}
	v.rate.tokens--
	visit := &Visit{door: d, of: v, yield: yield}
	v.handshakes = append(v.handshakes, visit)
	v.tunnels++
	d.pending++
	return visit, ""
}

// Settled notes the end of a handshake, whatever came of it.
func (v *Visit) Settled() {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	i := slices.Index(v.of.handshakes, v)
	v.of.handshakes = slices.Delete(v.of.handshakes, i, i+1)
	v.door.pending--
}

// Left notes the end of a connection.
func (v *Visit) Left() {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	v.of.tunnels--
}

// MakeRoom asks a handshake to yield: of the address with the most of them the
// one that has taken longest. An honest peer has one, for some milliseconds; who
// keeps all places from others has many, or is old.
func (d *Door) MakeRoom() {
	d.mu.Lock()
	var most *Visit
	count := 0
	for _, v := range d.visitors {
		if len(v.handshakes) <= count {
			continue
		}
		if i := slices.IndexFunc(v.handshakes, func(v *Visit) bool { return v.yield != nil }); i >= 0 {
			most, count = v.handshakes[i], len(v.handshakes)
		}
	}
	var yield func()
	if most != nil {
		yield, most.yield = most.yield, nil
	}
	d.mu.Unlock()
	if yield != nil {
		yield()
	}
}

// Waiting is how many handshakes go on.
func (d *Door) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pending
}

// Of is how many handshakes of one address go on.
func (d *Door) Of(from netip.Addr) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v := d.visitors[from]; v != nil {
		return len(v.handshakes)
	}
	return 0
}

// tidyLocked forgets addresses that have nothing here and ask for nothing.
func (d *Door) tidyLocked(now time.Time) {
	if len(d.visitors) < maxIdleVisitors {
		return
	}
	for a, v := range d.visitors {
		if v.tunnels == 0 && v.rate.full(now) {
			delete(d.visitors, a)
		}
	}
}

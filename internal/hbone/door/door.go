// Package door bounds what one address may have of a server of tunnels, and
// counts and logs who is turned away or cut off for it. It refuses to know a
// transport: hbone/h2 and hbone/h3 ask it.
package door

import (
	"net/netip"
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
	handshakes, tunnels int // tunnels includes the handshakes
	rate                Meter
}

// New bounds the handshakes at once, the tunnels, those in their handshake
// included, and the connections per second of one address.
func New(handshakes, tunnels, rate int) *Door {
	return &Door{handshakes: handshakes, tunnels: tunnels, rate: float64(rate), visitors: map[netip.Addr]*visitor{}}
}

// Enter lets a connection in, or says why not. What it lets in leaves by Settled
// and Left.
func (d *Door) Enter(from netip.Addr, now time.Time) Abuse {
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
		return Rate
	case v.handshakes >= d.handshakes:
		return Handshakes
	case v.tunnels >= d.tunnels:
		return Connections
	}
	v.rate.tokens--
	v.handshakes++
	v.tunnels++
	d.pending++
	return ""
}

// Settled notes the end of a handshake, whatever came of it.
func (d *Door) Settled(from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.visitors[from].handshakes--
	d.pending--
}

// Left notes the end of a connection.
func (d *Door) Left(from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.visitors[from].tunnels--
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
		return v.handshakes
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

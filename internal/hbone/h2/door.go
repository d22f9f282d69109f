package h2

import (
	"net/netip"
	"sync"
	"time"
)

// maxIdleVisitors is how many addresses without connections are remembered before
// those that have been quiet are forgotten.
const maxIdleVisitors = 4096

// door bounds what one address may have of a server: handshakes at once, tunnels,
// and connections per second. An honest peer makes a handful and keeps them, and
// has each carry a hundred streams. Who asks for more is turned away at once, at
// the price of an accept, so that others find a place.
type door struct {
	handshakes, tunnels int // of one address
	rate                float64

	mu       sync.Mutex
	visitors map[netip.Addr]*visitor
	pending  int // handshakes of all
}

// visitor is one address.
type visitor struct {
	handshakes, tunnels int // tunnels includes the handshakes
	rate                meter
}

func newDoor(c ServerConfig) *door {
	return &door{handshakes: c.PeerHandshakes, tunnels: c.PeerTunnels, rate: float64(c.PeerRate), visitors: map[netip.Addr]*visitor{}}
}

// enter lets a connection in, or says why not. What it lets in leaves by settled
// and left.
func (d *door) enter(from netip.Addr, now time.Time) Abuse {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitors[from]
	if v == nil {
		d.tidyLocked(now)
		v = &visitor{rate: newMeter(2*d.rate, d.rate)}
		d.visitors[from] = v
	}
	v.rate.refill(now)
	switch {
	case v.rate.tokens < 1:
		return AbuseRate
	case v.handshakes >= d.handshakes:
		return AbuseHandshakes
	case v.tunnels >= d.tunnels:
		return AbuseConnections
	}
	v.rate.tokens--
	v.handshakes++
	v.tunnels++
	d.pending++
	return ""
}

// settled notes the end of a handshake, whatever came of it.
func (d *door) settled(from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.visitors[from].handshakes--
	d.pending--
}

// left notes the end of a connection.
func (d *door) left(from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.visitors[from].tunnels--
}

// waiting is how many handshakes go on.
func (d *door) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pending
}

// tidyLocked forgets addresses that have nothing here and ask for nothing.
func (d *door) tidyLocked(now time.Time) {
	if len(d.visitors) < maxIdleVisitors {
		return
	}
	for a, v := range d.visitors {
		if v.tunnels == 0 && v.rate.full(now) {
			delete(d.visitors, a)
		}
	}
}

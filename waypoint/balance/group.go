package balance

import (
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/circuit"
)

// group is what is known of one service's port.
type group struct {
	key      groupKey
	roster   atomic.Pointer[roster]
	inFlight atomic.Int64
	retries  atomic.Int64
	turn     atomic.Uint64
	// overflows counts what a bound refused.
	overflows atomic.Int64
	used      atomic.Int64 // when it was asked last, in nanoseconds since 1970
	// probeAt is when an ejected endpoint wants a probe, likewise.
	probeAt atomic.Int64

	budget budget
	slots  slots

	// mu is taken before an endpoint's.
	mu        sync.Mutex
	endpoints map[string]*endpoint
	ejected   []*endpoint // open or half-open, of this roster or not
}

// endpoint is what is known of one workload as an endpoint of the group.
type endpoint struct {
	uid      string
	at       netip.AddrPort
	born     time.Time
	veteran  bool // it was there when the group was first asked for: no warm-up
	inFlight atomic.Int64
	// share, in thousandths, and era are the circuit's.
	share, era atomic.Uint32

	mu      sync.Mutex
	circuit circuit.Circuit
	// latency is math.Float64bits of seconds, at when it was measured; written
	// with mu held.
	latency, measured atomic.Uint64

	// listed is whether the roster has it; gone since when not. Under group.mu.
	listed bool
	gone   time.Time
}

func newGroup(k groupKey) *group {
	g := &group{key: k, endpoints: map[string]*endpoint{}}
	g.probeAt.Store(math.MaxInt64)
	return g
}

// idle reports whether nobody has asked for long.
func (g *group) idle(now time.Time) bool {
	return g.inFlight.Load() == 0 && now.UnixNano()-g.used.Load() > int64(forgetGroup)
}

// current is the roster for a query, made anew if the endpoints have changed.
func (g *group) current(q *Query, now time.Time) *roster {
	if n := now.UnixNano(); n-g.used.Load() > int64(time.Second) {
		g.used.Store(n)
	}
	if r := g.roster.Load(); r != nil && r.same(q) {
		return r
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.roster.Load()
	if r != nil && r.same(q) {
		return r
	}
	for _, e := range g.endpoints {
		e.listed = false
	}
	next := newRoster(q, func(w *mesh.Workload, at netip.AddrPort) *endpoint {
		return g.endpointLocked(w.UID, at, now, r == nil)
	})
	g.roster.Store(next)
	g.forgetLocked(now)
	if q.Settings.Outlier.Off {
		g.resetLocked(now)
	}
	return next
}

// endpointLocked finds what is known of a workload. At another address it is
// another one, whatever its name.
func (g *group) endpointLocked(uid string, at netip.AddrPort, now time.Time, veteran bool) *endpoint {
	e := g.endpoints[uid]
	if e == nil || e.at != at {
		e = &endpoint{uid: uid, at: at, born: now, veteran: veteran}
		e.share.Store(circuit.Whole)
		g.endpoints[uid] = e
	}
	e.listed, e.gone = true, time.Time{}
	return e
}

// forgetEndpoint is how long one that has vanished is remembered: requests of
// an older View may still ask for it, and it may come back.
const forgetEndpoint = time.Minute

// forgetLocked drops the endpoints that have vanished; at once, if they are
// many.
func (g *group) forgetLocked(now time.Time) {
	listed := 0
	for _, e := range g.endpoints {
		if e.listed {
			listed++
		}
	}
	many := len(g.endpoints) > 2*listed+64
	for uid, e := range g.endpoints {
		if e.listed {
			continue
		}
		if e.gone.IsZero() {
			e.gone = now
		}
		if many || now.Sub(e.gone) > forgetEndpoint {
			delete(g.endpoints, uid)
		}
	}
	g.ejected = keep(g.ejected, func(e *endpoint) bool { return g.endpoints[e.uid] == e })
	g.scheduleLocked()
}

func keep(list []*endpoint, want func(*endpoint) bool) []*endpoint {
	var kept []*endpoint
	for _, e := range list {
		if want(e) {
			kept = append(kept, e)
		}
	}
	return kept
}

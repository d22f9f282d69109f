package balance

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// Query is a request that looks for an endpoint.
type Query struct {
	Service *mesh.Service
	Port    uint16
	// Endpoints are the View's of the service; the slice is never changed.
	Endpoints []view.Endpoint
	Settings  mesh.Settings
	// Local is the waypoint's own pod; nil knows no locality and no network.
	Local *mesh.Workload
	// Hash gives the value of a key of consistent hashing, if the request has it.
	Hash func(mesh.HashKey) (string, bool)
	// Avoid are the UIDs of workloads that were tried already.
	Avoid []string
	// Pin is the UID of the workload that the session is with.
	Pin string
	// Original is the address that the client dialled.
	Original netip.AddrPort
	// Retry says that this is not the first try: the bounds on retries hold.
	Retry bool
	// NoProbe says that the request could not be repeated elsewhere.
	NoProbe bool
}

func (q *Query) avoids(uid string) bool { return len(q.Avoid) > 0 && slices.Contains(q.Avoid, uid) }

// Choice is an endpoint for one try. Done must be called once.
type Choice struct {
	Workload *mesh.Workload
	// Address is the application's. Of a workload that has only a hostname it
	// is the port alone.
	Address netip.AddrPort
	App     mesh.AppProtocol
	// Probe says that the endpoint was ejected: try elsewhere should it fail.
	Probe bool

	group    *group
	endpoint *endpoint
	era      uint32
	retry    bool
	// connected says that it holds one of the group's slots.
	connected bool
}

// Result is the end of a try. The zero value says nothing about the endpoint,
// as when the client went away.
type Result struct {
	// Status is the answer's; of gRPC, the HTTP status that its code stands for.
	Status int
	// Err is why there is no whole answer, if there is none.
	Err error
	// Local says that Err is a connection that did not come about, or a timeout.
	Local bool
	// Latency is the time to the answer's head.
	Latency time.Duration
}

// Balancer chooses endpoints. The zero value is not valid: NewBalancer.
type Balancer struct {
	mu     sync.RWMutex
	groups map[groupKey]*group
	swept  time.Time
}

type groupKey struct {
	service mesh.ServiceKey
	port    uint16
}

// NewBalancer makes a Balancer that knows nothing yet.
func NewBalancer() *Balancer { return &Balancer{groups: map[groupKey]*group{}} }

// Pick chooses an endpoint. Errors are *UnavailableError and *OverflowError.
func (b *Balancer) Pick(q Query) (Choice, error) {
	now := time.Now()
	g := b.group(groupKey{q.Service.Key(), q.Port}, now)
	r := g.current(&q, now)
	if err := g.enter(&q, now); err != nil {
		return Choice{}, err
	}
	p := picker{group: g, roster: r, query: q, now: now}
	c := p.pick()
	if c == nil {
		g.leave(q.Retry)
		return Choice{}, &UnavailableError{Service: q.Service.Key(), Port: q.Port, Why: p.why()}
	}
	c.endpoint.inFlight.Add(1)
	return Choice{
		Workload: c.workload, Address: c.at, App: c.app, Probe: p.probe,
		group: g, endpoint: c.endpoint, era: c.endpoint.era.Load(), retry: q.Retry,
	}, nil
}

// Report tells how the try goes while it lasts, as when a connection has come
// about that will live long. Done follows, with what is new by then.
func (c Choice) Report(in Result) {
	if c.endpoint != nil {
		c.group.report(c.endpoint, time.Now(), in, c.era, c.Probe)
	}
}

// Done tells how the try ended. Of the zero Choice it tells nothing.
func (c Choice) Done(in Result) {
	if c.endpoint == nil {
		return
	}
	c.endpoint.inFlight.Add(-1)
	c.group.leave(c.retry)
	if c.connected {
		c.group.slots.give()
	}
	c.group.report(c.endpoint, time.Now(), in, c.era, c.Probe)
}

// group finds what is known of a service's port.
func (b *Balancer) group(k groupKey, now time.Time) *group {
	b.mu.RLock()
	g := b.groups[k]
	b.mu.RUnlock()
	if g != nil {
		return g
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if g = b.groups[k]; g == nil {
		b.sweepLocked(now)
		g = newGroup(k)
		b.groups[k] = g
	}
	return g
}

// forgetGroup is how long nobody asks for a service until it is forgotten.
const forgetGroup = 10 * time.Minute

// sweepLocked drops the groups that nobody has asked for.
func (b *Balancer) sweepLocked(now time.Time) {
	if now.Sub(b.swept) < forgetGroup/10 {
		return
	}
	b.swept = now
	for k, g := range b.groups {
		if g.idle(now) {
			delete(b.groups, k)
		}
	}
}

package balance

import (
	"context"
	"slices"
	"sync"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// slots are the connections that a service may be given at once, and those who
// wait for one, the first first.
type slots struct {
	mu      sync.Mutex
	limit   int
	used    int
	waiting []chan struct{} // closed when a slot is given
}

// Connect waits for the right to use a connection of the service's own, where
// its connectionPool bounds them, and gives the choice that holds it until
// Done. HTTP/2 shares connections and needs none. An error is an
// *OverflowError, or the end of ctx; Done must be called even so.
func (c Choice) Connect(ctx context.Context, bounds *mesh.Connections) (Choice, error) {
	if bounds.MaxConnections <= 0 {
		return c, nil
	}
	turn, ok := c.group.slots.take(bounds.MaxConnections, bounds.MaxPending)
	if !ok {
		return c, c.group.overflow("http1MaxPendingRequests", bounds.MaxPending)
	}
	if turn != nil {
		select {
		case <-turn:
		case <-ctx.Done():
			c.group.slots.leave(turn)
			return c, context.Cause(ctx)
		}
	}
	c.connected = true
	return c, nil
}

// ConnectNow is Connect for one who cannot wait.
func (c Choice) ConnectNow(bounds *mesh.Connections) (Choice, error) {
	if bounds.MaxConnections <= 0 {
		return c, nil
	}
	if c.connected = c.group.slots.takeNow(bounds.MaxConnections); !c.connected {
		return c, c.group.overflow("maxConnections", bounds.MaxConnections)
	}
	return c, nil
}

// Waiting is how many requests wait for a connection to a service's port.
func (b *Balancer) Waiting(service mesh.ServiceKey, port uint16) int {
	b.mu.RLock()
	g := b.groups[groupKey{service, port}]
	b.mu.RUnlock()
	if g == nil {
		return 0
	}
	g.slots.mu.Lock()
	defer g.slots.mu.Unlock()
	return len(g.slots.waiting)
}

// take gives a slot, or a place in the queue, or nothing if that is full. No
// bound on those who wait is 0.
func (s *slots) take(limit, pending int) (turn chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
	s.serveLocked()
	switch {
	case s.used < limit:
		s.used++
		return nil, true
	case pending > 0 && len(s.waiting) >= pending:
		return nil, false
	}
	turn = make(chan struct{})
	s.waiting = append(s.waiting, turn)
	return turn, true
}

func (s *slots) takeNow(limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
	s.serveLocked()
	if s.used >= limit {
		return false
	}
	s.used++
	return true
}

// serveLocked gives free slots to those who wait.
func (s *slots) serveLocked() {
	for s.used < s.limit && len(s.waiting) > 0 {
		close(s.waiting[0])
		s.waiting = s.waiting[1:]
		s.used++
	}
}

// give takes a slot back.
func (s *slots) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	s.serveLocked()
}

// leave ends waiting, if need be by giving back what has just come.
func (s *slots) leave(turn chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, turn); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return
	}
	s.used--
	s.serveLocked()
}

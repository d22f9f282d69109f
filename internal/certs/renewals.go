package certs

import (
	"sync"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Renewals collects the identities whose certificates are new since somebody
// asked, so that tunnels made with older ones are let go of. Make one with
// NewRenewals; its Add is for Config.Changed.
type Renewals struct {
	wake chan struct{}

	mu  sync.Mutex
	ids map[spiffe.ID]bool
}

// NewRenewals makes an empty collection.
func NewRenewals() *Renewals {
	return &Renewals{wake: make(chan struct{}, 1), ids: map[spiffe.ID]bool{}}
}

// Add never waits.
func (r *Renewals) Add(id spiffe.ID) {
	r.mu.Lock()
	r.ids[id] = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Wake is sent to when there is something to take.
func (r *Renewals) Wake() <-chan struct{} { return r.wake }

// Take empties the collection.
func (r *Renewals) Take() map[spiffe.ID]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := r.ids
	r.ids = map[spiffe.ID]bool{}
	return ids
}

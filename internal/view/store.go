package view

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
)

// Store holds the current View. One writer at a time changes it; anyone reads
// it. Make one with NewStore.
type Store struct {
	current atomic.Pointer[View]
	writing sync.Mutex // held while a batch is made and published
}

var _ xds.Receiver = (*Store)(nil)

// NewStore makes a Store with an empty View.
func NewStore() *Store {
	s := &Store{}
	s.current.Store(&View{superseded: make(chan struct{})})
	return s
}

// View is the current state. A connection calls it once for each decision.
func (s *Store) View() *View { return s.current.Load() }

// Receive applies one xDS response as one batch and returns what it would not
// take. A rejected workload or service stays as it was known before; a
// rejected policy closes what it guards until it is understood or removed.
// Resources of other types are passed over.
func (s *Store) Receive(_ context.Context, u xds.Update) []xds.Rejection {
	// Reading is done before the batch is begun, outside of the lock.
	var apply []func(*batch)
	var rejected []xds.Rejection
	for _, name := range u.Removed {
		apply = append(apply, func(b *batch) { b.remove(u.Type, name) })
	}
	for _, r := range u.Upserts {
		change, err := read(u.Type, r)
		if err != nil {
			rejected = append(rejected, xds.Rejection{Name: r.Name, Reason: err})
		}
		if change != nil {
			apply = append(apply, change)
		}
	}
	s.apply(apply, u.Generation)
	return rejected
}

// Replace makes a whole model the state, in place of everything known. This is
// how a proxy that is fed from a local file begins.
func (s *Store) Replace(m mesh.Model) {
	s.writing.Lock()
	defer s.writing.Unlock()
	old := s.View()
	empty := &View{generation: old.generation, policyEpoch: old.policyEpoch}
	b := empty.edit()
	b.policyChanged = true
	for _, p := range m.Policies {
		b.putPolicy(guard{policy: p})
	}
	for _, x := range m.Services {
		b.putService(x)
	}
	for _, w := range m.Workloads {
		b.putWorkload(w)
	}
	s.publish(old, b.view(empty))
}

func (s *Store) apply(changes []func(*batch), configuration uint64) {
	if len(changes) == 0 {
		return
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	old := s.View()
	b := old.edit()
	for _, change := range changes {
		change(b)
	}
	if configuration == 0 {
		configuration = old.configuration
	}
	if b.changed || configuration != old.configuration {
		v := b.view(old)
		v.configuration = configuration
		s.publish(old, v)
	}
}

func (s *Store) publish(old, fresh *View) {
	s.current.Store(fresh)
	close(old.superseded)
}

// read turns a resource into a change, an error, or, for a policy that is not
// understood, both.
func read(typ string, r xds.Resource) (func(*batch), error) {
	switch typ {
	case xds.TypeAddress:
		w, svc, err := wire.UnmarshalAddress(r.Body)
		switch {
		case err != nil:
			return nil, err
		case w != nil && w.UID == r.Name:
			return func(b *batch) { b.putWorkload(w) }, nil
		case svc != nil && svc.Key().String() == r.Name:
			return func(b *batch) { b.putService(svc) }, nil
		}
		return nil, fmt.Errorf("its body has another name")
	case xds.TypeAuthorization:
		p, err := wire.UnmarshalPolicy(r.Name, r.Body)
		if p == nil {
			return nil, err
		}
		return func(b *batch) { b.putPolicy(guard{p, err}) }, err
	}
	return nil, nil
}

// remove tries an address as a workload first, then as a service, as both
// share one type (dataplane spec 4.6).
func (b *batch) remove(typ, name string) {
	switch typ {
	case xds.TypeAddress:
		if b.removeWorkload(name) {
			return
		}
		if k, err := mesh.ParseServiceKey(name); err == nil {
			b.removeService(k)
		}
	case xds.TypeAuthorization:
		if k, err := mesh.ParsePolicyKey(name); err == nil {
			b.removePolicy(k)
		}
	}
}

// Package feed carries changed objects from where they are seen to the one
// goroutine that owns the objects.Set.
//
// It owns the queue between them, which holds at most one change per object:
// whoever is slow sees the newest state, not every step to it. It refuses to
// look into objects. istiod-lite/kube and a directory of YAML (Directory) fill
// it, the root package of istiod-lite drains it.
package feed

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Changes are the newest states of objects; nil means that one is gone.
type Changes map[objects.Ref]any

// Apply brings the set up to date and returns what changed. An error names an
// object of a kind the set does not hold, which its feeder should not send.
func (c Changes) Apply(s *objects.Set) (changed []objects.Ref, err error) {
	var errs []error
	for ref, object := range c {
		if object == nil {
			s.Delete(ref)
		} else if _, err := s.Put(object); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", ref, err))
			continue
		}
		changed = append(changed, ref)
	}
	return changed, errors.Join(errs...)
}

// Queue is safe for many writers and one reader. The zero value is not usable;
// make one with NewQueue.
type Queue struct {
	changed chan struct{} // capacity 1

	mu      sync.Mutex
	pending Changes
	since   time.Time
}

// NewQueue makes an empty queue.
func NewQueue() *Queue { return &Queue{changed: make(chan struct{}, 1), pending: Changes{}} }

// Put notes an object's newest state, nil if it is gone.
func (q *Queue) Put(ref objects.Ref, object any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending) == 0 {
		q.since = time.Now()
	}
	q.pending[ref] = object
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// Changed gets a value after one or more Puts.
func (q *Queue) Changed() <-chan struct{} { return q.changed }

// Take empties the queue and tells when its first change came.
func (q *Queue) Take() (Changes, time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.pending
	q.pending = Changes{}
	return out, q.since
}

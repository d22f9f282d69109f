package kube

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/workqueue"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

const (
	// maxAttempts bounds how often one condition is tried before the next change.
	maxAttempts = 5
	// writers bounds how many are written at once.
	writers = 8
)

// Conditions writes what users are told into the status of their objects.
// Every replica may Want; only the one that Runs writes.
type Conditions struct {
	client dynamic.Interface
	log    *slog.Logger

	mu      sync.Mutex
	told    bool // there was a Want
	wanted  map[objects.Ref][]translate.Condition
	details map[objects.Ref]*translate.Detail
	seen    map[objects.Ref]any                               // watched routes
	queue   workqueue.TypedRateLimitingInterface[objects.Ref] // nil unless running
}

// NewConditions makes a writer that writes nothing before Run.
func NewConditions(client dynamic.Interface, log *slog.Logger) *Conditions {
	return &Conditions{client: client, log: log, wanted: map[objects.Ref][]translate.Condition{}, seen: map[objects.Ref]any{}}
}

// Seen takes note of a watched object; nil means that it is gone. If it does
// not say what is wanted, because somebody else changed that, it will again.
func (c *Conditions) Seen(ref objects.Ref, object any) {
	if se, ok := object.(*networking.ServiceEntry); ok {
		c.seenEntry(ref, se)
		return
	}
	_, ok := listed[ref.Kind]
	_, whole := detailed[ref.Kind]
	if !ok && !whole {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if object == nil {
		delete(c.seen, ref)
		return
	}
	if ok {
		c.seen[ref] = object
	}
	if c.queue != nil && c.told {
		c.queue.Add(ref)
	}
}

// Want replaces all that should be told, given by object. It never waits for
// the API server.
func (c *Conditions) Want(all []translate.Condition) {
	next := make(map[objects.Ref][]translate.Condition, len(c.wanted))
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Object == all[0].Object {
			n++
		}
		next[all[0].Object], all = all[:n:n], all[n:]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.told
	was := c.wanted
	c.told, c.wanted = true, next
	if c.queue == nil {
		return
	}
	if first {
		c.addAllLocked()
		return
	}
	for ref, conds := range next {
		if !slices.Equal(conds, was[ref]) {
			c.queue.Add(ref)
		}
	}
	for ref := range was {
		if _, still := next[ref]; !still {
			c.queue.Add(ref)
		}
	}
}

// addAllLocked queues everything that may have to be written: also routes that
// are told nothing now, since an earlier leader may have told them something.
func (c *Conditions) addAllLocked() {
	for ref := range c.wanted {
		c.queue.Add(ref)
	}
	for ref := range c.seen {
		if c.wanted[ref] == nil { // else it would be written twice, for it may be under way already
			c.queue.Add(ref)
		}
	}
}

// Run writes until ctx ends, at first everything that the API server does not
// have already.
func (c *Conditions) Run(ctx context.Context) error {
	q := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[objects.Ref](200*time.Millisecond, 10*time.Second))
	c.mu.Lock()
	c.queue = q
	if c.told {
		c.addAllLocked()
	}
	c.mu.Unlock()
	defer context.AfterFunc(ctx, q.ShutDown)()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.queue = nil
	}()
	var running sync.WaitGroup
	defer running.Wait()
	for range writers {
		running.Go(func() { c.drain(ctx, q) })
	}
	return nil
}

// drain writes what is in the queue until it is shut down.
func (c *Conditions) drain(ctx context.Context, q workqueue.TypedRateLimitingInterface[objects.Ref]) {
	for {
		ref, stop := q.Get()
		if stop {
			return
		}
		err := c.write(ctx, ref)
		switch {
		case err == nil || ctx.Err() != nil:
			q.Forget(ref)
		case q.NumRequeues(ref) < maxAttempts-1:
			q.AddRateLimited(ref)
		default:
			c.log.Warn("condition not written", "object", ref.String(), "reason", err)
			q.Forget(ref)
		}
		q.Done(ref)
	}
}

package kube

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/workqueue"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// maxAttempts bounds how often one condition is tried before the next change.
const maxAttempts = 5

// Conditions writes what users are told into the status of their objects.
// Every replica may Want; only the one that Runs writes.
type Conditions struct {
	client dynamic.Interface
	log    *slog.Logger

	mu     sync.Mutex
	wanted map[objects.Ref][]translate.Condition
	queue  workqueue.TypedRateLimitingInterface[objects.Ref] // nil unless running
}

// NewConditions makes a writer that writes nothing before Run.
func NewConditions(client dynamic.Interface, log *slog.Logger) *Conditions {
	return &Conditions{client: client, log: log, wanted: map[objects.Ref][]translate.Condition{}}
}

// Want replaces all that should be told. It never waits for the API server.
func (c *Conditions) Want(all []translate.Condition) {
	next := map[objects.Ref][]translate.Condition{}
	for _, w := range all {
		next[w.Object] = append(next[w.Object], w)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue != nil {
		for ref, conds := range next {
			if !reflect.DeepEqual(conds, c.wanted[ref]) {
				c.queue.Add(ref)
			}
		}
		for ref := range c.wanted {
			if _, still := next[ref]; !still {
				c.queue.Add(ref)
			}
		}
	}
	c.wanted = next
}

// Run writes until ctx ends, at first everything that the API server does not
// have already.
func (c *Conditions) Run(ctx context.Context) error {
	q := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[objects.Ref](200*time.Millisecond, 10*time.Second))
	c.mu.Lock()
	c.queue = q
	for ref := range maps.Keys(c.wanted) {
		q.Add(ref)
	}
	c.mu.Unlock()
	defer context.AfterFunc(ctx, q.ShutDown)()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.queue = nil
	}()
	for {
		ref, stop := q.Get()
		if stop {
			return nil
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

// write brings one object's conditions up to date, if it still exists.
func (c *Conditions) write(ctx context.Context, ref objects.Ref) error {
	target, ok := targets[ref.Kind]
	if !ok {
		return fmt.Errorf("conditions of a %s are not written", ref.Kind)
	}
	c.mu.Lock()
	want := c.wanted[ref]
	c.mu.Unlock()
	api := c.client.Resource(target.resource).Namespace(ref.Key.Namespace)
	have, err := api.Get(ctx, ref.Key.Name, getOptions)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", ref, err)
	}
	patch, changed := target.patch(have, want, time.Now())
	if !changed {
		return nil
	}
	_, err = api.ApplyStatus(ctx, ref.Key.Name, patch, target.applyOptions())
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the status of %s: %w", ref, err)
	}
	return nil
}

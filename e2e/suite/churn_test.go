//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-mesh/ambit/e2e/soak"
	"github.com/ambit-mesh/ambit/manifests"
)

const (
	churned = 100
	// At one change a second, in bytes for each hour.
	controlLimit, proxyLimit = 1e6, 0.5e6
	// blocks is how many floors a slope is fitted to.
	blocks = 12
)

// TestChurnLeaksNoMemory: 100 workloads of which one changes every second, for
// two hours, and real pods that come, are called and go. The short form hurries,
// twenty changes in a second for five minutes; an hour is then what 3,600
// changes take. It has no visitors: what is counted of them is kept for an hour,
// which the long form warms up for, and only gathers in the short one. Nothing
// runs beside it: the heaps that are looked at are everybody's.
func TestChurnLeaksNoMemory(t *testing.T) {
	lasts := Lasts(5*time.Minute, 2*time.Hour)
	every, look, warm := 50*time.Millisecond, 4*time.Second, time.Minute
	if long() {
		every, look, warm = time.Second, 30*time.Second, 70*time.Minute
	}
	HoldFor(t, mesh, lasts, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		// The last thousand decisions are remembered: that memory is full from now on.
		if err := sc.Works(ctx, "client", "get", "--count", "1200", url(hosts[0], httpPort)); err != nil {
			return err
		}
		c := &churn{sc: sc}
		if err := c.begin(ctx, churned); err != nil {
			return err
		}
		heaps, err := sc.heaps(ctx)
		if err != nil {
			return err
		}
		tasks, ctx := errgroup.WithContext(ctx)
		stop, end := context.WithTimeout(ctx, lasts)
		defer end()
		tasks.Go(func() error { return c.run(ctx, stop, every) })
		if long() {
			tasks.Go(func() error { return c.visits(ctx, stop) })
		}
		tasks.Go(func() error { return watch(ctx, stop, heaps, look, warm, c.hours) })
		if err := tasks.Wait(); err != nil {
			return err
		}
		sc.Figure("churn", "%s, %d changes of %d workloads, %d pods came and went", lasts, c.made.Load(), churned, c.visited)
		return sc.judge(heaps)
	})
}

// judge tells every slope, and is an error if one is too steep for sure.
func (sc *Scene) judge(heaps []*heap) error {
	var errs []error
	for _, h := range heaps {
		s := soak.Fit(soak.Floor(h.hours, h.bytes, blocks))
		sc.Figure("heap of "+h.what, "%+.2f MB/h (%+.2f to %+.2f), %.1f MB at the end", s.Value/1e6, s.Low/1e6, s.High/1e6, h.bytes[len(h.bytes)-1]/1e6)
		if s.Low > h.limit {
			errs = append(errs, fmt.Errorf("the heap of %s grows by %.2f MB/h, at least by %.2f; %.1f are allowed", h.what, s.Value/1e6, s.Low/1e6, h.limit/1e6))
		}
	}
	return errors.Join(errs...)
}

// heaps are those of the control plane and of every node proxy.
func (sc *Scene) heaps(ctx context.Context) ([]*heap, error) {
	var all []*heap
	for _, part := range []struct {
		label   string
		admin   uint16
		metrics uint16
		limit   float64
	}{{"app=istiod", 8080, 15014, controlLimit}, {"app=ztunnel", 15000, 15020, proxyLimit}} {
		pods, err := sc.Reach.RunningPods(ctx, manifests.Namespace, part.label, "")
		if err != nil {
			return nil, err
		}
		if len(pods) == 0 {
			return nil, fmt.Errorf("no pod is labelled %s", part.label)
		}
		for _, p := range pods {
			all = append(all, &heap{sc: sc, what: p.Name, admin: part.admin, metrics: part.metrics, limit: part.limit})
		}
	}
	return all, nil
}

// watch looks at the heaps once they are warm, until stop ends.
func watch(ctx, stop context.Context, heaps []*heap, look, warm time.Duration, hours func() float64) error {
	select {
	case <-time.After(warm):
	case <-stop.Done():
		return ctx.Err()
	}
	for tick := time.NewTicker(look); ; {
		for _, h := range heaps {
			if err := h.look(ctx, hours()); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-stop.Done():
			tick.Stop()
			return ctx.Err()
		}
	}
}

// Package drain owns the end of a proxy's life: how long it may take, ending
// several parts at the same time within it, and what ends only after the data
// plane has. It refuses to know what a part is. ztunnel and the waypoint run
// within it.
package drain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Deadline is how long a drain may take (dataplane spec 0.5): what is set
// explicitly, else what leaves room within the pod's grace period to cut the
// rest, else five seconds.
func Deadline(explicit, grace time.Duration) time.Duration {
	switch {
	case explicit > 0:
		return explicit
	case grace > 10*time.Second:
		return grace - 5*time.Second
	case grace > 0:
		return max(time.Second, grace-time.Second)
	}
	return 5 * time.Second
}

// ErrDeadline is why what was left at the end of a drain was cut.
var ErrDeadline = errors.New("the proxy that carried it ended, and its time to drain was over")

// ErrGone is why what was left was cut before: there is nobody to drain for.
var ErrGone = errors.New("the pod that it belonged to is gone")

// Part is something that ends: Drain stops taking new work, waits for what is
// going on, and cuts the rest when ctx is done.
type Part interface {
	Drain(ctx context.Context) error
}

// All drains the parts side by side and returns when all have ended.
func All[P Part](ctx context.Context, parts []P) error {
	errs := make([]error, len(parts))
	var wait sync.WaitGroup
	for i, p := range parts {
		wait.Go(func() {
			if err := p.Drain(ctx); err != nil {
				errs[i] = fmt.Errorf("draining: %w", err)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

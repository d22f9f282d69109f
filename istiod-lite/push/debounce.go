package push

import (
	"context"
	"time"
)

// The times of Debounce that the control plane uses: a policy is at the
// proxies long before a second is over, and a rollout of many pods is pushed
// in few steps.
const (
	Quiet = 10 * time.Millisecond
	Max   = 250 * time.Millisecond
)

// Debounce calls act after changes: once none came for quiet, or max after the
// first that act has not seen. Changes during act start the next round. It
// returns when ctx ends or act fails.
func Debounce(ctx context.Context, changes <-chan struct{}, quiet, max time.Duration, act func() error) error {
	for {
		select {
		case <-changes:
		case <-ctx.Done():
			return nil
		}
		if !settle(ctx, changes, quiet, max) {
			return nil
		}
		if err := act(); err != nil {
			return err
		}
	}
}

// settle waits until it is quiet or late; false if ctx ended.
func settle(ctx context.Context, changes <-chan struct{}, quiet, max time.Duration) bool {
	still, late := time.NewTimer(quiet), time.NewTimer(max)
	defer still.Stop()
	defer late.Stop()
	for {
		select {
		case <-changes:
			still.Reset(quiet)
		case <-still.C:
			return true
		case <-late.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

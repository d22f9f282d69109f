package push

import (
	"context"
	"time"
)

// The pauses of Pace that the control plane uses: one change is at the proxies
// at once, and a rollout of many pods is pushed in few steps.
const (
	Shortest = 10 * time.Millisecond
	Longest  = 250 * time.Millisecond
)

// Pace calls act after changes: at once after a calm, then after a pause that
// doubles, from shortest to longest, while changes keep coming. What comes in a
// pause or during act is seen by the next act, which never is left out. It
// returns when ctx ends or act fails.
func Pace(ctx context.Context, changes <-chan struct{}, shortest, longest time.Duration, act func() error) error {
	pause := shortest
	for {
		select {
		case <-changes:
		case <-ctx.Done():
			return nil
		}
		for stormy := true; stormy; {
			if err := act(); err != nil {
				return err
			}
			rest := time.NewTimer(pause)
			select {
			case <-rest.C:
			case <-ctx.Done():
				rest.Stop()
				return nil
			}
			select {
			case <-changes:
				pause = min(2*pause, longest)
			default:
				pause, stormy = shortest, false
			}
		}
	}
}

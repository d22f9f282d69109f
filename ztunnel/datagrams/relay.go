package datagrams

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Relay carries datagrams between two Conns until one of them ends, until nothing
// was carried either way for as long as idle, or until ctx is done. It gives the
// cause, and has closed both. What cannot be sent is lost.
func Relay(ctx context.Context, a, b Conn, idle time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var carried atomic.Bool
	var running sync.WaitGroup
	way := func(from, to Conn) {
		for ctx.Err() == nil {
			if err := from.Receive(func(payload []byte) {
				if to.Send(payload) == nil {
					carried.Store(true)
				}
			}); err != nil {
				cancel(err)
			}
		}
	}
	running.Go(func() { way(a, b) })
	running.Go(func() { way(b, a) })
	quiet := time.NewTicker(idle)
	defer quiet.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-quiet.C:
			if !carried.Swap(false) {
				cancel(ErrIdle)
			}
		}
	}
	a.Close()
	b.Close()
	running.Wait()
	return context.Cause(ctx)
}

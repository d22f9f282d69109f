package handoff

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/zds"
)

// acceptEvery bounds how often a ztunnel that keeps failing can come back.
const acceptEvery = 200 * time.Millisecond

// Serve accepts ztunnels until ctx ends, and returns when all connections have
// ended. Call it only when what already runs on the node has been Put or Kept:
// a ztunnel stops what its snapshot does not name.
func (p *Pods) Serve(ctx context.Context, l *zds.Listener) error {
	var links sync.WaitGroup
	defer links.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		links.Go(func() {
			defer conn.Close()
			if err := p.serve(ctx, conn); err != nil && !ended(err) {
				p.log.Warn("ztunnel disconnected", "error", err)
			}
		})
		select {
		case <-ctx.Done():
		case <-time.After(acceptEvery):
		}
	}
}

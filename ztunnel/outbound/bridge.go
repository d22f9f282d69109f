package outbound

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"
)

// The bounds of the pause between two looks at a node proxy that is not there.
const (
	firstBridge = 50 * time.Millisecond
	maxBridge   = 500 * time.Millisecond
)

// bridged is one flight's wait for a node proxy; zero until it waits.
type bridged struct {
	until time.Time
	pause time.Duration
}

// bridge waits a little and says whether to try again every endpoint that was
// tried. Only what looks like a proxy that is being started again is waited
// for: the node is there, and nobody listens where its proxy does. What the
// application itself refuses comes as an answer through the tunnel, and is told
// at once.
func (f *flight) bridge(ctx context.Context, err error) bool {
	if !absent(err) {
		return false
	}
	b := &f.bridged
	if b.until.IsZero() {
		b.until, b.pause = time.Now().Add(f.Bridge), firstBridge
	}
	if !time.Now().Before(b.until) {
		return false
	}
	select {
	case <-time.After(b.pause):
	case <-ctx.Done():
		return false
	}
	b.pause = min(2*b.pause, maxBridge)
	return true
}

// absent says whether a connection was refused, or ended in its handshake.
func absent(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
}

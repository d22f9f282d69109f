package h3

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// How a tunnel ends that is not cut. The end of a connection would drop what is
// under way and what has arrived and was not read. So a GOAWAY is said twice:
// once when a drain begins, with the highest number there is, and again when
// nothing is missing: no stream is open, and all that the peer has sent is in our
// hands, some of it in memory for applications that have not read it yet. When
// each end has said the second, and only then, the connection is closed.

// The first numbers, of a request and of a push.
const (
	lastRequest = 1<<62 - 4
	lastPush    = 1<<62 - 1
)

// lingering is how long an end that has said all waits for the other's word. Who
// speaks as we do answers after a round trip.
const lingering = 2 * time.Second

// errLeft is the end of a tunnel on which both ends had nothing left to say.
var errLeft = errors.New("drained")

// drain is the beginning of the end.
func (t *tunnel) drain() {
	t.mu.Lock()
	again := t.draining
	t.draining = true
	t.doneLocked()
	t.mu.Unlock()
	if !again {
		id := uint64(lastRequest)
		if t.client {
			id = lastPush
		}
		t.sendGoAway(id)
		t.leave()
	}
}

// takeGoAway is the peer's word. A number below the first is its last.
func (t *tunnel) takeGoAway(id uint64) error {
	if !t.client && id > lastPush || t.client && id%4 != 0 {
		return fault(http3.ErrCodeIDError, "GOAWAY with a number that is none")
	}
	t.mu.Lock()
	t.leaving = true
	t.doneLocked()
	if t.client {
		t.heard = t.heard || id < lastRequest
	} else {
		t.heard = t.heard || id < lastPush
	}
	var refused []*stream
	for n, s := range t.streams {
		if t.client && uint64(n) >= id {
			refused = append(refused, s)
		}
	}
	t.mu.Unlock()
	for _, s := range refused {
		s.abort(http3.ErrCodeRequestCanceled, hbone.ErrDraining)
	}
	t.leave()
	return nil
}

// leave is called after whatever may have been the last thing to wait for. It
// takes no lock but tunnel.mu and calls nothing of quic-go's, which calls it.
func (t *tunnel) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.draining && !t.leaving || t.err != nil {
		return
	}
	for s := range t.untaken {
		if !s.saving {
			s.saving = true
			t.work.Go(s.save)
		}
	}
	if len(t.streams) > 0 || len(t.untaken) > 0 || t.opening > 0 {
		return
	}
	if !t.said {
		t.said = true
		t.linger = time.AfterFunc(lingering, func() { t.fail(errLeft) })
		id := uint64(t.nextID)
		t.work.Go(func() { t.sendGoAway(id) })
	}
	if t.heard {
		// After the word above, so that the peer has it too, if it is not lost.
		t.linger.Reset(0)
	}
}

// Drain implements hbone.Tunnel.
func (t *tunnel) Drain(ctx context.Context) error {
	t.drain()
	return t.awaitEmpty(ctx)
}

// awaitEmpty closes the tunnel when its streams have ended, or ctx.
func (t *tunnel) awaitEmpty(ctx context.Context) error {
	defer t.Close()
	select {
	case <-t.ended_:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("draining tunnel to %s: %w", t.peer.Remote, ctx.Err())
	}
}

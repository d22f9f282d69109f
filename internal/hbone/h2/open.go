package h2

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/head"
)

// The client's end of streams.

// Open implements hbone.Tunnel.
func (t *tunnel) Open(ctx context.Context, r hbone.Request) (hbone.Stream, hbone.Response, error) {
	s := newStream(t, 0)
	s.answered = make(chan struct{})
	if err := t.connect(s, r); err != nil {
		return nil, hbone.Response{}, fmt.Errorf("opening stream to %s: %w", r.Authority, err)
	}
	t.push()
	select {
	case <-s.answered:
	case <-ctx.Done():
		s.abort(http2.ErrCodeCancel, hbone.ErrClosed)
		return nil, hbone.Response{}, fmt.Errorf("waiting for the answer of %s: %w", t.peer.Remote, ctx.Err())
	}
	return s.result()
}

// connect registers the stream and queues its HEADERS.
func (t *tunnel) connect(s *stream, r hbone.Request) error {
	pseudo, header, err := head.Request(r, t.peer.Remote.String())
	if err != nil {
		return err
	}
	if r.Protocol == hbone.ProtocolUDP {
		if !t.takesUDP() {
			return fmt.Errorf("%w by the peer", hbone.ErrNoDatagrams)
		}
		s.udp = newFlow()
	}
	if err := head.Check(pseudo, header, t.peerHeaderList()); err != nil {
		return err
	}
	t.cmu.Lock() // streams begin in the order of their numbers
	defer t.cmu.Unlock()
	if err := t.register(s); err != nil {
		return err
	}
	t.writeHeadersLocked(s.id, false, pseudo, header)
	return nil
}

func (t *tunnel) peerHeaderList() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peerHeaders
}

func (t *tunnel) takesUDP() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.extended
}

func (t *tunnel) register(s *stream) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.err != nil:
		return fmt.Errorf("%w: %w", hbone.ErrDraining, t.err)
	case t.isDone:
		return hbone.ErrDraining
	case len(t.streams) >= t.capacity:
		return fmt.Errorf("%w: %d streams are open", hbone.ErrDraining, len(t.streams))
	}
	t.earned.Add(earnedStream)
	s.id = t.nextID
	s.sendWindow = t.peerWindow
	t.streams[s.id] = s
	t.nextID += 2
	if t.nextID > maxStreamID-2 {
		t.doneLocked() // numbers are used up
	}
	return nil
}

// answerLocked wakes Open; t.mu is held.
func (s *stream) answerLocked() {
	if s.answered != nil && !s.isAnswered {
		s.isAnswered = true
		close(s.answered)
	}
}

// result is the answer that came, or why none did.
func (s *stream) result() (hbone.Stream, hbone.Response, error) {
	t := s.t
	t.mu.Lock()
	r, ok, err := s.response, s.responded, s.serr
	t.mu.Unlock()
	switch {
	case !ok:
		s.endReceive(hbone.ErrClosed, true) // DATA may have come without an answer
		return nil, r, fmt.Errorf("waiting for the answer of %s: %w", t.peer.Remote, err)
	case r.Status != hbone.StatusOK:
		s.abort(http2.ErrCodeCancel, hbone.ErrClosed)
		return nil, r, &hbone.StatusError{Response: r}
	}
	return s, r, nil
}

// responseBlock is HEADERS from the server: an interim answer, the answer, or
// trailers.
func (t *tunnel) responseBlock(s *stream, b *head.Block, end bool) error {
	t.mu.Lock()
	again := s.responded
	t.mu.Unlock()
	if !again {
		r, final, err := b.Response()
		if err != nil || !final && end {
			return t.streamError(s.id, http2.ErrCodeProtocol)
		}
		if !final {
			return t.pay(AbuseEmptyFrames, costFrame)
		}
		t.mu.Lock()
		s.response, s.responded = r, true
		t.mu.Unlock()
	} else if !end {
		return t.streamError(s.id, http2.ErrCodeProtocol)
	}
	if end {
		t.peerEnds(s)
	}
	t.mu.Lock()
	s.answerLocked()
	t.mu.Unlock()
	return nil
}

// Drain implements hbone.Tunnel.
func (t *tunnel) Drain(ctx context.Context) error {
	t.mu.Lock()
	t.drainLocked()
	t.mu.Unlock()
	t.control(func(f *http2.Framer) { f.WriteGoAway(0, http2.ErrCodeNo, nil) })
	return t.awaitEmpty(ctx)
}

// awaitEmpty closes the tunnel when its streams have ended, or ctx.
func (t *tunnel) awaitEmpty(ctx context.Context) error {
	defer t.Close()
	select {
	case <-t.emptied:
		t.settle()
		return nil
	case <-t.ended_:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("draining tunnel to %s: %w", t.peer.Remote, ctx.Err())
	}
}

// settle lets what is queued reach the peer.
func (t *tunnel) settle() {
	t.wire.SetWriteDeadline(time.Now().Add(time.Second))
	t.lockWrite()
	t.unlockWrite()
}

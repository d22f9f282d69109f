package h3

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/capsule"
	"github.com/ambit-mesh/ambit/internal/hbone/head"
)

// The client's end of streams.

// Open implements hbone.Tunnel.
func (t *tunnel) Open(ctx context.Context, r hbone.Request) (hbone.Stream, hbone.Response, error) {
	var none hbone.Response
	request, err := t.request(r)
	if err != nil {
		return nil, none, fmt.Errorf("opening stream to %s: %w", r.Authority, err)
	}
	s, err := t.begin(r)
	if err != nil {
		return nil, none, fmt.Errorf("opening stream to %s: %w", r.Authority, err)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer t.listen(end)()
	stop := context.AfterFunc(ctx, func() { s.abort(http3.ErrCodeRequestCanceled, hbone.ErrClosed) })
	resp, err := s.ask(request)
	if !stop() {
		return nil, none, fmt.Errorf("waiting for the answer of %s: %w", t.peer.Remote, context.Cause(ctx))
	}
	switch {
	case err != nil:
		s.abort(http3.ErrCodeRequestCanceled, hbone.ErrClosed)
		return nil, none, fmt.Errorf("waiting for the answer of %s: %w", t.peer.Remote, err)
	case resp.Status != hbone.StatusOK:
		s.abort(http3.ErrCodeRequestCanceled, hbone.ErrClosed)
		return nil, resp, &hbone.StatusError{Response: resp}
	}
	if s.udp != nil {
		t.spawn(s.receiveCapsules) // ends with the stream
	}
	return s, resp, nil
}

// listen ends a request if no packet comes from the peer while it waits, until
// stop. The peer acknowledges what it gets within milliseconds, however long it
// takes to answer, unless it is far away. Further requests go elsewhere.
func (t *tunnel) listen(end context.CancelCauseFunc) (stop func()) {
	before := t.conn.ConnectionStats()
	limit := max(t.silence, farAway*before.SmoothedRTT)
	timer := time.AfterFunc(limit, func() {
		if t.conn.ConnectionStats().PacketsReceived != before.PacketsReceived {
			return
		}
		why := fmt.Errorf("%w within %v", hbone.ErrSilent, limit)
		t.mu.Lock()
		first := !t.isDone
		t.doneLocked()
		t.mu.Unlock()
		end(why)
		if first {
			t.silent(why)
		}
	})
	return func() { timer.Stop() }
}

// farAway is how many round trips a peer may be silent, in which a lost packet is
// sent again twice.
const farAway = 6

// request is the HEADERS frame that asks for r.
func (t *tunnel) request(r hbone.Request) ([]byte, error) {
	pseudo, header, err := head.Request(r, t.peer.Remote.String())
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	most, extended := t.peerHeaders, t.extended
	t.mu.Unlock()
	if r.Protocol != "" && !extended {
		return nil, fmt.Errorf("%w by the peer", hbone.ErrNoDatagrams)
	}
	if err := head.Check(pseudo, header, most); err != nil {
		return nil, err
	}
	return encode(pseudo, header), nil
}

func (t *tunnel) headersTaken() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peerHeaders
}

// begin opens and registers a stream of which the peer knows nothing yet.
func (t *tunnel) begin(r hbone.Request) (*stream, error) {
	if err := t.place(); err != nil {
		return nil, err
	}
	q, err := t.conn.OpenStream()
	if err != nil {
		t.mu.Lock()
		t.opening--
		t.mu.Unlock()
		t.leave()
		if _, full := errors.AsType[*quic.StreamLimitReachedError](err); full {
			return nil, fmt.Errorf("%w: the peer takes no more streams now", hbone.ErrDraining)
		}
		return nil, fmt.Errorf("%w: %w", hbone.ErrDraining, err)
	}
	s := newStream(t, q)
	if r.Protocol == hbone.ProtocolUDP {
		s.udp = capsule.NewQueue()
	}
	t.mu.Lock()
	t.opening--
	gone := t.err
	if gone == nil {
		t.streams[q.StreamID()] = s
	}
	t.mu.Unlock()
	if gone != nil {
		return nil, fmt.Errorf("%w: %w", hbone.ErrDraining, gone)
	}
	s.watch()
	return s, nil
}

// place takes a place among the streams.
func (t *tunnel) place() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch n := len(t.streams) + t.opening; {
	case t.err != nil:
		return fmt.Errorf("%w: %w", hbone.ErrDraining, t.err)
	case t.isDone:
		return hbone.ErrDraining
	case n >= t.capacity:
		return fmt.Errorf("%w: %d streams are open", hbone.ErrDraining, n)
	}
	t.opening++
	return nil
}

// ask sends the request and reads the answer, past interim ones.
func (s *stream) ask(request []byte) (hbone.Response, error) {
	var none hbone.Response
	if _, err := s.writeHead(request); err != nil {
		return none, err
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for range maxInterim {
		b, err := s.readHead()
		if err != nil {
			return none, s.headError(err)
		}
		r, final, err := b.Response()
		if err != nil {
			return none, err
		}
		if final {
			return r, nil
		}
	}
	return none, errors.New("too many interim answers")
}

// maxInterim is how many answers may come before the answer.
const maxInterim = 5

// headError is what a failed read of a head means.
func (s *stream) headError(err error) error {
	if _, ok := errors.AsType[*connError](err); ok {
		s.t.fail(err)
		return lost(err)
	}
	if errors.Is(err, errNoHead) || errors.Is(err, errTruncated) {
		return fmt.Errorf("%w: %w", hbone.ErrReset, err)
	}
	return s.userError(err)
}

func (s *stream) writeHead(b []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	return s.writeLocked(b)
}

package h2

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/head"
)

// The server's end of streams.

// headers is a HEADERS frame: on a server a new stream, or trailers.
func (t *tunnel) headers(fh http2.FrameHeader) error {
	b, end, err := t.readBlock(fh)
	if err != nil {
		return err
	}
	id := fh.StreamID
	if !t.client && id%2 == 1 && id > t.lastSeen() {
		return t.requestBlock(id, b, end)
	}
	s, err := t.stream(id)
	switch {
	case err != nil:
		return err
	case !t.client && b.Pseudo[":method"] != "":
		return &connError{code: http2.ErrCodeStreamClosed, reason: "request on a stream that was used"}
	case s == nil:
		return nil // reset here; the peer did not know
	case s.peerEnded():
		return &connError{code: http2.ErrCodeStreamClosed, reason: "HEADERS after the end of its stream"}
	case t.client:
		return t.responseBlock(s, b, end)
	case !end:
		return t.streamError(id, http2.ErrCodeProtocol)
	}
	t.peerEnds(s)
	return nil
}

func (t *tunnel) lastSeen() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lastID
}

// requestBlock begins a stream and its handler.
func (t *tunnel) requestBlock(id uint32, b *head.Block, end bool) error {
	r, status, reason, malformed := t.requestOf(b)
	s := newStream(t, id)
	s.request = r
	if r.Protocol == hbone.ProtocolUDP {
		s.udp = newFlow()
		if !t.offered {
			status, reason = hbone.StatusBadRequest, "CONNECT-UDP is not served"
		}
	}
	if s.window.left < 0 {
		return protocolError("no window")
	}
	switch t.admit(s, end) {
	case tooMany:
		return t.refuse(id, http2.ErrCodeRefusedStream)
	case tooLate:
		return nil
	}
	if end {
		t.noteEnd(id)
		s.endReceive(errEOF, false)
	}
	switch {
	case malformed != "":
		t.left()
		return t.streamError(id, http2.ErrCodeProtocol)
	case status != 0:
		defer t.left()
		(&incoming{s}).Reject(status, reason)
		return t.pay(AbuseStreams, costRequest)
	}
	t.serving.Go(func() { t.handle(s) })
	return nil
}

type admission int

const (
	admitted admission = iota
	tooMany
	tooLate // after the GOAWAY that says so
)

// admit registers a stream and counts its handler.
func (t *tunnel) admit(s *stream, end bool) admission {
	s.ctx, s.cancel = context.WithCancel(t.ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastID = s.id
	switch {
	case s.id > t.goAwayID || t.err != nil:
		s.cancel()
		return tooLate
	case len(t.streams) >= t.tuning.MaxStreams, t.running >= 2*t.tuning.MaxStreams:
		s.cancel()
		return tooMany
	}
	t.earned.Add(earnedStream)
	s.gotEnd, s.began = end, time.Now()
	s.sendWindow = t.peerWindow
	t.streams[s.id] = s
	t.running++
	return admitted
}

func (t *tunnel) refuse(id uint32, code http2.ErrCode) error {
	if err := t.pay(AbuseStreams, costRequest); err != nil {
		return err
	}
	t.control(func(f *http2.Framer) { f.WriteRSTStream(id, code) })
	return nil
}

// left notes that a handler has returned.
func (t *tunnel) left() {
	t.mu.Lock()
	t.running--
	last := t.checkEmptyLocked()
	t.mu.Unlock()
	if last {
		t.fail(hbone.ErrClosed)
	}
}

func (t *tunnel) handle(s *stream) {
	defer t.left()
	in := &incoming{s}
	defer func() {
		if !s.replied.Load() {
			in.Reject(hbone.StatusUnavailable, "not served")
		}
		s.Close()
		s.cancel()
	}()
	t.handler(in)
}

// incoming is a CONNECT on its way to an answer.
type incoming struct{ s *stream }

var _ hbone.Incoming = (*incoming)(nil)

func (in *incoming) Context() context.Context { return in.s.ctx }
func (in *incoming) Request() hbone.Request   { return in.s.request }
func (in *incoming) Peer() hbone.Peer         { return in.s.t.peer }

// Accept implements hbone.Incoming.
func (in *incoming) Accept(header map[string]string) (hbone.Stream, error) {
	if err := in.reply(hbone.StatusOK, head.WithCapsules(in.s.request, header), false); err != nil {
		return nil, err
	}
	in.s.t.push()
	return in.s, nil
}

// Reject implements hbone.Incoming.
func (in *incoming) Reject(status int, reason string) error {
	s, t := in.s, in.s.t
	var header map[string]string
	if reason = head.OneLine(reason); reason != "" {
		header = map[string]string{hbone.HeaderReason: reason}
	}
	if err := in.reply(status, header, true); err != nil {
		return err
	}
	s.endReceive(hbone.ErrClosed, true)
	t.mu.Lock()
	s.endSendLocked(hbone.ErrClosed)
	whole := s.gotEnd
	t.mu.Unlock()
	if !whole { // nothing more is wanted
		t.control(func(f *http2.Framer) { f.WriteRSTStream(s.id, http2.ErrCodeNo) })
	}
	t.ended(s, true, true)
	t.wake()
	return nil
}

// reply queues the answer, once.
func (in *incoming) reply(status int, header map[string]string, end bool) error {
	s, t := in.s, in.s.t
	pseudo := []head.Field{{Name: ":status", Value: strconv.Itoa(status)}}
	if err := head.Check(pseudo, header, t.peerHeaderList()); err != nil {
		return fmt.Errorf("answering %s: %w", s.request.Authority, err)
	}
	t.mu.Lock()
	err := s.serr
	t.mu.Unlock()
	if err != nil {
		return fmt.Errorf("answering %s: %w", s.request.Authority, err)
	}
	if s.replied.Swap(true) {
		return fmt.Errorf("answering %s: answered already", s.request.Authority)
	}
	t.cmu.Lock()
	defer t.cmu.Unlock()
	t.writeHeadersLocked(s.id, end, pseudo, header)
	return nil
}

// goAway is the first step of a drain: no stream should be begun from now on,
// but those on their way are served (RFC 9113, 6.8).
func (t *tunnel) goAway() {
	t.control(func(f *http2.Framer) { f.WriteGoAway(maxStreamID, http2.ErrCodeNo, nil) })
	t.pings.after(&t.pings.last, time.Second, t.goAwayFinally)
	t.pingToDrain()
}

// goAwayFinally is the second step, a round trip later.
func (t *tunnel) goAwayFinally() {
	t.mu.Lock()
	again := t.draining
	if !again {
		t.goAwayID = t.lastID
		t.drainLocked()
	}
	last := t.goAwayID
	t.mu.Unlock()
	if !again {
		t.control(func(f *http2.Framer) { f.WriteGoAway(last, http2.ErrCodeNo, nil) })
	}
}

package h3

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/capsule"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
	"github.com/ambit-mesh/ambit/internal/hbone/head"
)

// The server's end of streams.

// accept takes the client's streams until the tunnel ends.
func (t *tunnel) accept() {
	for {
		q, err := t.conn.AcceptStream(t.conn.Context())
		if err != nil {
			return // the tunnel has ended, and its context says why
		}
		if t.moved() != nil {
			return
		}
		s := newStream(t, q)
		s.began = time.Now()
		if !t.admit(s) {
			s.cancel()
			q.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
			q.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
			t.pay(door.Streams, costRequest)
			continue
		}
		s.watch()
		t.serving.Go(func() { t.handle(s) })
	}
}

// admit registers a stream and counts its handler.
func (t *tunnel) admit(s *stream) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nextID = max(t.nextID, s.q.StreamID()+4)
	t.begun++
	if t.said || t.err != nil || len(t.streams) >= t.tuning.MaxStreams || t.running >= 2*t.tuning.MaxStreams {
		return false
	}
	t.streams[s.q.StreamID()] = s
	t.running++
	return true
}

func (t *tunnel) handle(s *stream) {
	defer func() {
		t.mu.Lock()
		t.running--
		t.mu.Unlock()
	}()
	defer s.cancel()
	if !t.asked(s) {
		return
	}
	in := &incoming{s}
	defer func() {
		if !s.replied.Load() {
			in.Reject(hbone.StatusUnavailable, "not served")
		}
		s.Close()
	}()
	t.handler(in)
}

// asked reads the request, and answers it unless it is a CONNECT. Who begins one
// and does not end it has as long as a handshake.
func (t *tunnel) asked(s *stream) bool {
	s.rmu.Lock()
	s.q.SetReadDeadline(time.Now().Add(t.tuning.HandshakeTimeout))
	b, err := s.readHead()
	s.q.SetReadDeadline(time.Time{})
	s.rmu.Unlock()
	if err != nil {
		if _, ok := errors.AsType[*connError](err); ok {
			t.fail(err)
		}
		s.abort(http3.ErrCodeRequestIncomplete, hbone.ErrClosed)
		t.pay(door.Streams, costRequest)
		return false
	}
	r, status, reason, malformed := b.Request()
	s.request = r
	if r.Protocol == hbone.ProtocolUDP {
		if !t.offered {
			status, reason = hbone.StatusBadRequest, "CONNECT-UDP is not served"
		}
		t.mu.Lock()
		s.udp = capsule.NewQueue()
		t.mu.Unlock()
	}
	switch {
	case malformed != "":
		s.abort(http3.ErrCodeMessageError, hbone.ErrClosed)
		t.pay(door.Streams, costRequest)
		return false
	case status != 0:
		(&incoming{s}).Reject(status, reason)
		t.pay(door.Streams, costRequest)
		return false
	}
	return true
}

// incoming is a CONNECT on its way to an answer.
type incoming struct{ s *stream }

var _ hbone.Incoming = (*incoming)(nil)

func (in *incoming) Context() context.Context { return in.s.ctx }
func (in *incoming) Request() hbone.Request   { return in.s.request }
func (in *incoming) Peer() hbone.Peer         { return in.s.t.peer }

// Accept implements hbone.Incoming.
func (in *incoming) Accept(header map[string]string) (hbone.Stream, error) {
	if err := in.reply(hbone.StatusOK, head.WithCapsules(in.s.request, header)); err != nil {
		return nil, err
	}
	if in.s.udp != nil {
		in.s.t.serving.Go(in.s.receiveCapsules) // ends with the stream
	}
	return in.s, nil
}

// Reject implements hbone.Incoming.
func (in *incoming) Reject(status int, reason string) error {
	var header map[string]string
	if reason = head.OneLine(reason); reason != "" {
		header = map[string]string{hbone.HeaderReason: reason}
	}
	if err := in.reply(status, header); err != nil {
		return err
	}
	s := in.s
	s.CloseWrite()
	s.t.mu.Lock()
	s.aborted = hbone.ErrClosed
	s.t.mu.Unlock()
	s.stopReading(http3.ErrCodeNoError) // nothing more is wanted
	return nil
}

// reply sends the answer, once.
func (in *incoming) reply(status int, header map[string]string) error {
	s := in.s
	pseudo := []head.Field{{Name: ":status", Value: strconv.Itoa(status)}}
	err := head.Check(pseudo, header, s.t.headersTaken())
	if err == nil {
		err = s.sendable()
	}
	if err == nil && s.replied.Swap(true) {
		err = errors.New("answered already")
	}
	if err == nil {
		_, err = s.writeHead(encode(pseudo, header))
	}
	if err != nil {
		return fmt.Errorf("answering %s: %w", s.request.Authority, err)
	}
	return nil
}

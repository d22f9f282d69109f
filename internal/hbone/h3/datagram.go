package h3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/capsule"
)

// Datagrams of CONNECT-UDP (RFC 9297, RFC 9298): in a packet where they fit, and
// otherwise as a capsule on the stream, so that none is lost for its size. They
// are taken as they come, since quic-go keeps few and says nothing of those that
// it drops; what nobody receives is bounded and counted for each stream.

// smallDatagram is longer than any that fits into a packet of quic-go's.
const smallDatagram = 1500

// maxQuarter is the highest number of a stream, by four (RFC 9297, 2.1).
const maxQuarter = 1<<60 - 1

// receiveDatagrams takes what comes in packets.
func (t *tunnel) receiveDatagrams() {
	for {
		b, err := t.conn.ReceiveDatagram(t.conn.Context())
		if err != nil {
			return // the tunnel has ended, and its context says why
		}
		quarter, n, err := quicvarint.Parse(b)
		if err != nil || quarter > maxQuarter {
			t.fail(fault(http3.ErrCodeDatagramError, "datagram for a stream that cannot be"))
			return
		}
		p, ok := capsule.Payload(b[n:])
		if s := t.flow(quic.StreamID(4 * quarter)); s != nil && ok {
			s.Push(p)
		}
	}
}

// flow finds where a stream's datagrams go; nil if it has ended or has none.
func (t *tunnel) flow(id quic.StreamID) *capsule.Queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.streams[id]; s != nil {
		return s.udp
	}
	return nil
}

// receiveCapsules takes what comes on the stream, to its end.
func (s *stream) receiveCapsules() {
	var d capsule.Decoder
	_, err := s.writeTo(writerFunc(func(p []byte) (int, error) {
		if err := d.Write(p, s.udp.Push); err != nil {
			return 0, fmt.Errorf("%w: peer broke the protocol: %w", hbone.ErrReset, err)
		}
		return len(p), nil
	}))
	switch {
	case err == nil && !d.Between():
		err = fmt.Errorf("%w: peer broke the protocol: %w", hbone.ErrReset, errTruncated)
		s.abort(http3.ErrCodeDatagramError, err)
	case err == nil:
		err = io.EOF
	default:
		s.abort(http3.ErrCodeDatagramError, err) // if it is not over already
	}
	s.udp.End(err, errors.Is(err, hbone.ErrClosed))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// ReceiveDatagram implements hbone.Stream.
func (s *stream) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	if s.udp == nil {
		return nil, hbone.ErrNoDatagrams
	}
	p, err := s.udp.Receive(ctx)
	if err == nil {
		err = s.t.moved()
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Dropped implements hbone.DropCounter.
func (s *stream) Dropped() uint64 {
	if s.udp == nil {
		return 0
	}
	return s.udp.Dropped()
}

// SendDatagram implements hbone.Stream. While the path is full it waits, also
// beyond the end of ctx.
func (s *stream) SendDatagram(ctx context.Context, p []byte) error {
	switch {
	case s.udp == nil:
		return hbone.ErrNoDatagrams
	case len(p) > hbone.MaxDatagram:
		return fmt.Errorf("%w: %d bytes", hbone.ErrTooBig, len(p))
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	if err := s.sendable(); err != nil {
		return err
	}
	if err := s.t.moved(); err != nil {
		return err
	}
	if len(p) < smallDatagram && s.t.datagrams.Load() {
		if err := s.sendPacket(p); !isTooLarge(err) {
			return err
		}
	}
	return s.sendCapsule(ctx, p)
}

func isTooLarge(err error) bool {
	_, large := errors.AsType[*quic.DatagramTooLargeError](err)
	return large
}

// sendPacket sends p by itself.
func (s *stream) sendPacket(p []byte) error {
	var room [smallDatagram + 16]byte
	b := quicvarint.Append(room[:0], uint64(s.q.StreamID()/4))
	b = append(b, 0) // the context ID of payloads
	err := s.t.conn.SendDatagram(append(b, p...))
	if err == nil || isTooLarge(err) {
		return err
	}
	return s.userError(err)
}

// sendCapsule sends p on the stream. What of it ctx keeps back goes before the
// next.
func (s *stream) sendCapsule(ctx context.Context, p []byte) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	defer s.until(ctx)()
	if len(s.half) > 0 {
		n, err := s.writeLocked(s.half)
		s.half = s.half[n:]
		if err != nil {
			return ctxError(ctx, err)
		}
	}
	b := capsule.AppendHeader(make([]byte, dataRoom, dataRoom+capsule.HeaderLen+len(p)), len(p))
	b = append(b, p...)
	putData(b, len(b)-dataRoom)
	n, err := s.writeLocked(b)
	if n > 0 && n < len(b) {
		s.half = bytes.Clone(b[n:])
	}
	return ctxError(ctx, err)
}

// until ends writes with ctx, until the function is called that it returns.
func (s *stream) until(ctx context.Context) (stop func()) {
	over := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		s.q.SetWriteDeadline(time.Unix(1, 0))
		close(over)
	})
	return func() {
		if !cancel() {
			<-over
			s.q.SetWriteDeadline(time.Time{})
		}
	}
}

func ctxError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

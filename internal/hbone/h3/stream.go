package h3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/capsule"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
)

// stream is one CONNECT, on either end. It implements hbone.Stream.
type stream struct {
	t *tunnel
	q *quic.Stream

	// The receiving half, under rmu; see recv.go.
	rmu    sync.Mutex
	frame  header
	left   uint64       // of a DATA frame's payload
	skip   uint64       // of another frame
	saved  bytes.Buffer // what was taken off a connection that ends
	rerr   error        // why nothing more comes from the connection
	readBy atomic.Int64 // nanoseconds, 0: never

	// The sending half, under wmu; see send.go.
	wmu     sync.Mutex
	owed    int // of a frame whose header is sent
	queued  int // since quic-go last had nothing of ours waiting
	half    []byte
	closed  bool
	writeBy atomic.Int64

	// Under tunnel.mu.
	sentEnd bool  // we ended our half, or the peer wants no more of it
	gotEnd  bool  // the peer ended its half
	taken   bool  // and nothing of it is left in the connection
	saving  bool  // by save
	gone    bool  // no longer in tunnel.streams
	told    bool  // we said that we abort it
	aborted error // what its users get since then
	broken  error // why it was aborted, by either; nil after an orderly end

	over chan struct{} // closed when both halves have ended

	udp *capsule.Queue // of CONNECT-UDP; set under tunnel.mu, before its users have it

	// A server's: the CONNECT and whether it was answered.
	request hbone.Request
	began   time.Time
	replied atomic.Bool
	ctx     context.Context
	cancel  context.CancelFunc
}

var (
	_ hbone.Stream      = (*stream)(nil)
	_ hbone.ResetWaiter = (*stream)(nil)
	_ hbone.DropCounter = (*stream)(nil)
)

func newStream(t *tunnel, q *quic.Stream) *stream {
	s := &stream{t: t, q: q, over: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(t.ctx)
	return s
}

// watch hears of the end of each half, also when nobody reads or writes. s is in
// tunnel.streams by now.
func (s *stream) watch() {
	context.AfterFunc(s.q.Context(), func() {
		s.sendEnded(context.Cause(s.q.Context()))
	})
	s.q.SetReceiveFinalSizeCallback(func(int64) { s.t.ended(s, false, true) })
}

// sendEnded is the end of the sending half, also by the peer, which says so with
// STOP_SENDING.
func (s *stream) sendEnded(cause error) {
	if se, ok := errors.AsType[*quic.StreamError](cause); ok && se.Remote {
		if err := resetError(se); !errors.Is(err, errUnwanted) {
			s.breakOff(err)
		}
		if !s.replied.Load() {
			s.cancel()
			if !s.t.client && time.Since(s.began) < patienceOfAll {
				s.t.pay(door.RapidReset, costRequest)
			}
		}
	}
	s.t.ended(s, true, false)
}

// breakOff remembers why the stream did not end orderly. The first reason stays.
func (s *stream) breakOff(err error) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.broken == nil && !s.gone {
		s.broken = err
	}
}

// resetError is what the peer's RESET_STREAM or STOP_SENDING means here. NO_ERROR
// says that it needs no more of what we send.
func resetError(e *quic.StreamError) error {
	switch code := http3.ErrCode(e.ErrorCode); code {
	case http3.ErrCodeRequestRejected: // never begun: may be tried elsewhere
		return fmt.Errorf("%w: stream refused", hbone.ErrDraining)
	case http3.ErrCodeNoError:
		return errUnwanted
	default:
		return fmt.Errorf("%w (%v)", hbone.ErrReset, code)
	}
}

// userError is what quic-go's errors mean to a stream's user.
func (s *stream) userError(err error) error {
	s.t.mu.Lock()
	aborted := s.aborted
	s.t.mu.Unlock()
	se, isReset := errors.AsType[*quic.StreamError](err)
	switch {
	case aborted != nil:
		return aborted
	case isReset && se.Remote:
		err := resetError(se)
		s.breakOff(err)
		return err
	case isReset:
		return hbone.ErrClosed
	case errors.Is(err, quic.ErrStreamClosed):
		return errSentEnd
	}
	if reason := s.t.reason(); reason != nil {
		err = reason
	}
	return lost(err)
}

// CloseWrite ends the sending half. A second one does nothing. A Write that waits
// for the peer is woken.
func (s *stream) CloseWrite() error {
	s.q.SetWriteDeadline(time.Unix(1, 0))
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.closed {
		return nil
	}
	if err := s.sendable(); err != nil {
		if errors.Is(err, errUnwanted) {
			return nil
		}
		return err
	}
	if s.owed > 0 || len(s.half) > 0 {
		// A frame was announced whose bytes a deadline has kept back.
		s.Reset()
		return fmt.Errorf("closing in the middle of a write: %w", hbone.ErrClosed)
	}
	s.closed = true
	s.q.Close()
	s.t.ended(s, true, false)
	return nil
}

// Reset aborts the stream. CONNECT_ERROR is what RFC 9114, 4.4 wants for a
// connection that was reset.
func (s *stream) Reset() error {
	s.abort(http3.ErrCodeConnectError, hbone.ErrClosed)
	return nil
}

// Close implements hbone.Stream.
func (s *stream) Close() error {
	s.t.mu.Lock()
	whole := s.gotEnd && s.sentEnd
	if whole && s.aborted == nil {
		s.aborted = hbone.ErrClosed
	}
	s.t.mu.Unlock()
	if !whole {
		return s.Reset()
	}
	s.letGo(http3.ErrCodeNoError)
	return nil
}

// abort ends both halves here, with err for their users, and tells the peer. What
// was written before still reaches it, and so does an end that was said before.
func (s *stream) abort(code http3.ErrCode, err error) {
	t := s.t
	t.mu.Lock()
	if s.aborted == nil {
		s.aborted = err
	}
	if s.broken == nil && !s.gone {
		s.broken = err
	}
	tell := !s.told
	s.told = true
	t.mu.Unlock()
	if tell {
		s.q.SetReliableBoundary()
		s.letGo(code)
	}
	s.cancel()
	t.ended(s, true, true)
}

// letGo has quic-go forget the stream. What the peer wants no more of counts for
// it as one of our streams until we say so too; an end that we have said must
// still arrive.
func (s *stream) letGo(code http3.ErrCode) {
	s.stopReading(code)
	if !errors.Is(context.Cause(s.q.Context()), quic.ErrStreamClosed) {
		s.q.CancelWrite(quic.StreamErrorCode(code))
	}
}

// stopReading gives up what has arrived and what would.
func (s *stream) stopReading(code http3.ErrCode) {
	s.q.CancelRead(quic.StreamErrorCode(code))
	s.t.taken(s)
}

// tunnelEnded gives the stream's users their error.
func (s *stream) tunnelEnded(err error) {
	s.t.mu.Lock()
	if s.aborted == nil {
		s.aborted = lost(err)
	}
	if s.broken == nil {
		s.broken = s.aborted
	}
	s.t.mu.Unlock()
	s.cancel()
	s.t.ended(s, true, true)
}

// AwaitReset implements hbone.ResetWaiter.
func (s *stream) AwaitReset() error {
	<-s.over
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.broken
}

// SetReadDeadline implements hbone.Stream.
func (s *stream) SetReadDeadline(at time.Time) error {
	if s.udp != nil {
		return hbone.ErrOnlyDatagrams
	}
	s.readBy.Store(nanos(at))
	return s.q.SetReadDeadline(at)
}

// SetWriteDeadline implements hbone.Stream.
func (s *stream) SetWriteDeadline(at time.Time) error {
	if s.udp != nil {
		return hbone.ErrOnlyDatagrams
	}
	s.writeBy.Store(nanos(at))
	return s.q.SetWriteDeadline(at)
}

// nanos is a deadline for an atomic; 0 is never.
func nanos(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return max(1, at.UnixNano())
}

func passed(by *atomic.Int64) bool {
	at := by.Load()
	return at != 0 && time.Now().UnixNano() >= at
}

// errUnwanted is what a writer gets whose peer has orderly ended, and does not
// read on.
var errUnwanted = fmt.Errorf("%w: it takes no more", hbone.ErrReset)

// errSentEnd is what a writer gets after CloseWrite.
var errSentEnd = fmt.Errorf("%w for writing", hbone.ErrClosed)

var errEOF = io.EOF

package h2

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// stream is one CONNECT, on either end. It implements hbone.Stream.
type stream struct {
	t  *tunnel
	id uint32

	// The receiving half; see recv.go.
	rmu    sync.Mutex
	rcond  sync.Cond // on rmu
	q      queue
	rerr   error // why nothing more comes; given after the queue is empty
	sink   *sink // takes bytes past the queue while WriteTo waits
	window window
	broken error // why the stream was aborted; nil after an orderly end
	over   bool  // both halves have ended
	readBy deadline
	udp    *flow // of CONNECT-UDP; set before the stream is known

	// The sending half, under tunnel.mu; see send.go.
	scond      sync.Cond // on tunnel.mu
	sendWindow int64
	serr       error // why nothing more may be sent
	sentEnd    bool  // we said END_STREAM or RST_STREAM
	gotEnd     bool  // the peer did
	starved    bool  // in tunnel.starved
	gone       bool  // no longer in tunnel.streams
	told       bool  // we said RST_STREAM
	writeBy    deadline

	// A client's: the answer to its CONNECT, under tunnel.mu until answered.
	response   hbone.Response
	responded  bool // an answer came
	isAnswered bool
	answered   chan struct{} // closed with the answer, or with the end

	// A server's: the CONNECT and whether it was answered.
	request hbone.Request
	began   time.Time
	replied atomic.Bool
	ctx     context.Context
	cancel  context.CancelFunc
}

var (
	_ hbone.Stream      = (*stream)(nil)
	_ hbone.DropCounter = (*stream)(nil)
)

func newStream(t *tunnel, id uint32) *stream {
	s := &stream{t: t, id: id, window: newWindow(t), q: queue{hold: t.hold}}
	s.rcond.L = &s.rmu
	s.scond.L = &t.mu
	return s
}

// CloseWrite sends END_STREAM. A second one does nothing.
func (s *stream) CloseWrite() error {
	if s.udp != nil && s.udp.cut() {
		s.Reset()
		return fmt.Errorf("closing in the middle of a datagram: %w", hbone.ErrClosed)
	}
	s.t.lockWrite()
	err := s.closeWriteLocked()
	s.t.unlockWrite()
	switch {
	case errors.Is(err, errSentEnd), errors.Is(err, errUnwanted):
		return nil
	case err != nil:
		return err
	}
	s.t.ended(s, true, false)
	return nil
}

func (s *stream) closeWriteLocked() error {
	t := s.t
	if err := t.writeControlLocked(); err != nil {
		return err
	}
	t.mu.Lock()
	err := s.serr
	if err == nil {
		s.serr = errSentEnd
	}
	t.mu.Unlock()
	if err != nil {
		return err
	}
	var h [frameHeaderLen]byte
	putHeader(h[:], 0, http2.FlagDataEndStream, s.id)
	return t.writeLocked(h[:])
}

// Reset aborts the stream. CONNECT_ERROR is what RFC 9113, 8.5 wants for a
// connection that was reset, and what an upstream peer does not take for an
// orderly end (dataplane spec 1.7).
func (s *stream) Reset() error {
	s.abort(http2.ErrCodeConnect, hbone.ErrClosed)
	return nil
}

// Close implements hbone.Stream.
func (s *stream) Close() error {
	s.t.mu.Lock()
	whole := s.gotEnd && s.sentEnd
	s.t.mu.Unlock()
	if !whole {
		return s.Reset()
	}
	s.endReceive(hbone.ErrClosed, true)
	return nil
}

// abort ends both halves here, with err for their users, and tells the peer.
func (s *stream) abort(code http2.ErrCode, err error) {
	t := s.t
	t.mu.Lock()
	s.endSendLocked(err)
	tell := !s.gone && !s.told && t.err == nil
	s.told = true
	t.mu.Unlock()
	if tell { // before whoever it wakes gives another reason
		t.control(func(f *http2.Framer) { f.WriteRSTStream(s.id, code) })
	}
	s.endReceive(err, true)
	s.breakReceive(err)
	if s.cancel != nil {
		s.cancel()
	}
	t.ended(s, true, true)
}

// endSendLocked stops writers; t.mu is held. The first reason stays.
func (s *stream) endSendLocked(err error) {
	if s.serr == nil || errors.Is(s.serr, errSentEnd) {
		s.serr = err
	}
	s.scond.Broadcast()
	s.answerLocked()
}

// peerReset is RST_STREAM from the peer. NO_ERROR says that it needs no more of
// what we send, and is an orderly end of what it sent (dataplane spec 1.7).
func (s *stream) peerReset(code http2.ErrCode) {
	err := fmt.Errorf("%w (%v)", hbone.ErrReset, code)
	if code == http2.ErrCodeRefusedStream { // never begun: may be tried elsewhere
		err = fmt.Errorf("%w: stream refused", hbone.ErrDraining)
	} else if code == http2.ErrCodeNo {
		err = errUnwanted
	}
	s.t.mu.Lock()
	s.endSendLocked(err)
	s.t.mu.Unlock()
	if code == http2.ErrCodeNo {
		s.endReceive(errEOF, false)
	} else {
		s.breakReceive(err)
	}
	if s.cancel != nil && !s.replied.Load() {
		s.cancel()
	}
	s.t.ended(s, true, true)
}

// AwaitReset implements hbone.ResetWaiter.
func (s *stream) AwaitReset() error {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for s.broken == nil && !s.over {
		s.rcond.Wait()
	}
	return s.broken
}

// errUnwanted is what a writer gets whose peer has orderly ended, and does not
// read on.
var errUnwanted = fmt.Errorf("%w: it takes no more", hbone.ErrReset)

// errSentEnd is what a writer gets after CloseWrite.
var errSentEnd = fmt.Errorf("%w for writing", hbone.ErrClosed)

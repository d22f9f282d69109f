package h3

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
)

// Read implements hbone.Stream.
func (s *stream) Read(p []byte) (int, error) {
	switch {
	case s.udp != nil:
		return 0, hbone.ErrOnlyDatagrams
	case len(p) == 0:
		return 0, nil
	}
	return s.read(p)
}

func (s *stream) read(p []byte) (int, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	return s.readLocked(p)
}

func (s *stream) readLocked(p []byte) (int, error) {
	if s.saved.Len() > 0 && !passed(&s.readBy) {
		if err := s.gaveUp(); err != nil {
			return 0, err
		}
		return s.saved.Read(p)
	}
	if err := s.seekLocked(); err != nil {
		return 0, err
	}
	n, err := s.q.Read(p[:min(uint64(len(p)), s.left)])
	s.left -= uint64(n)
	if e := s.t.moved(); e != nil {
		return 0, e
	}
	if n > 0 {
		return n, nil // an error comes again
	}
	return 0, s.receiveError(err, s.left > 0)
}

// gaveUp is the error of a user who has reset or closed the stream itself.
func (s *stream) gaveUp() error {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if errors.Is(s.aborted, hbone.ErrClosed) && s.taken {
		return s.aborted
	}
	return nil
}

// seekLocked waits until bytes of DATA follow in the connection.
func (s *stream) seekLocked() error {
	for s.left == 0 {
		switch {
		case passed(&s.readBy):
			return os.ErrDeadlineExceeded
		case s.rerr != nil:
			return s.rerr
		case s.skip > 0:
			if err := s.skipLocked(); err != nil {
				return s.receiveError(err, true)
			}
			continue
		}
		kind, length, err := s.frame.read(s.q)
		if err != nil {
			return s.receiveError(err, false)
		}
		switch {
		case kind == frameData:
			s.left = length
			if length == 0 {
				s.t.pay(door.EmptyFrames, costFrame)
			}
		case elsewhere(kind):
			err := fault(http3.ErrCodeFrameUnexpected, "frame that has no place on a request's stream")
			s.t.fail(err)
			return lost(err)
		case length > uint64(s.t.maxHeaders()):
			return s.receiveError(errTruncated, true)
		default:
			s.skip = length // trailers, and what we do not know
			s.t.pay(door.EmptyFrames, costFrame)
		}
	}
	return nil
}

func (s *stream) skipLocked() error {
	var b [512]byte
	n, err := s.q.Read(b[:min(uint64(len(b)), s.skip)])
	s.skip -= uint64(n)
	if s.skip == 0 {
		return nil // an error comes again
	}
	return err
}

// receiveError is what a failed read of the connection means; inside says that
// more had been announced. A deadline ends nothing.
func (s *stream) receiveError(err error, inside bool) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, io.EOF) && !inside:
		s.rerr = errEOF
	case errors.Is(err, io.EOF), errors.Is(err, errTruncated):
		s.rerr = fmt.Errorf("%w: peer broke the protocol: %w", hbone.ErrReset, errTruncated)
		s.abort(http3.ErrCodeFrameError, s.rerr)
	default:
		s.rerr = s.userError(err)
		if se, ok := errors.AsType[*quic.StreamError](err); ok && se.Remote && !errors.Is(s.rerr, errUnwanted) {
			s.resetByPeer(s.rerr)
		}
	}
	s.t.taken(s)
	return s.rerr
}

// resetByPeer ends the sending half with the other, as who resets a connection
// resets both ways: its word on the second may still be under way.
func (s *stream) resetByPeer(err error) {
	s.t.mu.Lock()
	if s.aborted == nil {
		s.aborted = err
	}
	s.t.mu.Unlock()
	s.letGo(http3.ErrCodeRequestCanceled)
	s.t.ended(s, true, true)
}

// save takes what the peer has sent to its end off a connection that is about to
// end. It is not more than the stream's window.
func (s *stream) save() {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	b := getBuf()
	defer bufs.Put(b)
	for s.rerr == nil {
		if s.seekLocked() == nil {
			n, err := s.q.Read(b[:min(uint64(len(b)), s.left)])
			s.saved.Write(b[:n])
			s.left -= uint64(n)
			if n == 0 {
				s.receiveError(err, s.left > 0)
			}
		}
		if s.rerr == nil && passed(&s.readBy) {
			return // its user looks at it again
		}
	}
}

// WriteTo implements hbone.Stream. A buffer is held only while there is something
// to copy.
func (s *stream) WriteTo(w io.Writer) (int64, error) {
	if s.udp != nil {
		return 0, hbone.ErrOnlyDatagrams
	}
	return s.writeTo(w)
}

func (s *stream) writeTo(w io.Writer) (total int64, err error) {
	for {
		n, err := s.writePiece(w)
		total += int64(n)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
	}
}

func (s *stream) writePiece(w io.Writer) (int, error) {
	if err := s.await(); err != nil {
		return 0, err
	}
	b := getBuf()
	defer bufs.Put(b)
	n, err := s.read(b[:])
	if err != nil {
		return 0, err
	}
	return w.Write(b[:n])
}

// await waits until a read would give something.
func (s *stream) await() error {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.saved.Len() > 0 {
		return nil
	}
	if err := s.seekLocked(); err != nil {
		return err
	}
	var b [1]byte
	if _, err := s.q.Peek(b[:]); err != nil {
		return s.receiveError(err, true)
	}
	return nil
}

package h3

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

const (
	// smallLen is what is left to quic-go to send when it likes, so that the
	// writer need not wait for a packet.
	smallLen = 1200
	// queueLen is how much of that may wait before a writer waits.
	queueLen = 16 << 10
)

// Write implements hbone.Stream.
func (s *stream) Write(p []byte) (total int, err error) {
	switch {
	case s.udp != nil:
		return 0, hbone.ErrOnlyDatagrams
	case len(p) == 0:
		return 0, nil
	}
	b := getBuf()
	defer bufs.Put(b)
	for len(p) > 0 {
		n := copy(b[dataRoom:], p)
		n, err := s.send(b[:dataRoom+n])
		total += n
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

// send writes what is behind the room for a header in b, and says how much of it
// went.
func (s *stream) send(b []byte) (total int, err error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.closed {
		return 0, errSentEnd
	}
	if err := s.sendable(); err != nil {
		return 0, err
	}
	if passed(&s.writeBy) {
		return 0, os.ErrDeadlineExceeded
	}
	if err := s.t.moved(); err != nil {
		return 0, err
	}
	if s.owed > 0 || len(s.half) > 0 {
		n, err := s.payLocked(b[dataRoom:])
		if err != nil || n == len(b)-dataRoom {
			return n, err
		}
		total, b = n, b[n:] // the header goes over what was sent
	}
	putData(b, len(b)-dataRoom)
	n, err := s.writeLocked(b)
	if n < len(b) {
		s.half = append(s.half[:0], b[min(n, dataRoom):dataRoom]...)
		s.owed = len(b) - max(n, dataRoom)
	}
	return total + max(0, n-dataRoom), err
}

// payLocked goes on with a frame that a deadline has cut: its bytes are taken
// from what is written now.
func (s *stream) payLocked(p []byte) (int, error) {
	if len(s.half) > 0 {
		n, err := s.writeLocked(s.half)
		s.half = s.half[n:]
		if err != nil {
			return 0, err
		}
	}
	n, err := s.writeLocked(p[:min(len(p), s.owed)])
	s.owed -= n
	return n, err
}

// writeLocked gives bytes to quic-go. It leaves nothing with it that the windows
// do not cover, as what has been given must reach the peer before a reset does.
func (s *stream) writeLocked(p []byte) (int, error) {
	if len(p) <= smallLen && s.queued+len(p) <= queueLen {
		err := s.q.TryWriteAll(p)
		if err == nil {
			s.queued += len(p)
			return len(p), nil
		}
		if !errors.Is(err, quic.ErrWouldBlock) {
			return 0, s.sendError(err)
		}
	}
	s.queued = 0
	n, err := s.q.WriteWithLimit(p, all)
	if err != nil {
		return n, s.sendError(err)
	}
	return n, nil
}

// all is no limit. That there is one keeps quic-go from returning before the
// windows covered what it was given.
func all(n int) int { return n }

func (s *stream) sendError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return s.userError(err)
}

// sendable is why nothing more may be sent.
func (s *stream) sendable() error {
	if err := s.q.Context().Err(); err == nil {
		return nil
	}
	return s.userError(context.Cause(s.q.Context()))
}

// ReadFrom implements hbone.Stream.
func (s *stream) ReadFrom(r io.Reader) (total int64, err error) {
	if s.udp != nil {
		return 0, hbone.ErrOnlyDatagrams
	}
	src := newSource(r)
	for {
		n, err := src.step(s)
		total += int64(n)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
	}
}

// source moves bytes from an application's socket into a stream, and holds a
// buffer only while there are some.
type source struct {
	r     io.Reader
	raw   syscall.RawConn // nil where r is no socket
	moved func(int)
	fn    func(fd uintptr) bool

	b     *buf
	n     int
	errno error
}

func newSource(r io.Reader) *source {
	src := &source{r: r}
	if so, ok := r.(hbone.Socket); ok {
		if raw, err := so.SyscallConn(); err == nil {
			src.raw, src.moved = raw, so.Moved
		}
	}
	src.fn = src.try
	return src
}

// step moves one piece.
func (src *source) step(s *stream) (sent int, err error) {
	n, err := src.read()
	if src.b != nil {
		defer func() { bufs.Put(src.b); src.b = nil }()
	}
	if n > 0 {
		m, e := s.send(src.b[:dataRoom+n])
		if e != nil {
			return m, e
		}
		sent = m
	}
	return sent, err
}

func (src *source) read() (int, error) {
	if src.raw == nil {
		src.b = getBuf()
		return src.r.Read(src.b[dataRoom:])
	}
	if err := src.raw.Read(src.fn); err != nil {
		return 0, err
	}
	switch {
	case src.errno != nil:
		return 0, src.errno
	case src.n == 0:
		return 0, io.EOF
	}
	src.moved(src.n)
	return src.n, nil
}

// try reads into a buffer, which it keeps only if it was of use.
func (src *source) try(fd uintptr) bool {
	b := getBuf()
	src.n, src.errno = readFD(fd, b[dataRoom:])
	if src.n > 0 {
		src.b = b
	} else {
		bufs.Put(b)
	}
	return !errors.Is(src.errno, syscall.EAGAIN)
}

// readFD is one try on a non-blocking descriptor.
func readFD(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

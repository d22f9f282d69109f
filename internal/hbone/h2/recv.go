package h2

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

var errEOF = io.EOF

// sink is an application's socket that takes bytes from the tunnel's reader
// itself, without waiting.
type sink struct {
	raw   syscall.RawConn
	moved func(int)
	fn    func(fd uintptr) bool
	p     []byte
	n     int
	errno error
	err   error // ends the WriteTo that the sink belongs to
}

func newSink(w io.Writer) *sink {
	so, ok := w.(hbone.Socket)
	if !ok {
		return nil
	}
	raw, err := so.SyscallConn()
	if err != nil {
		return nil
	}
	k := &sink{raw: raw, moved: so.Moved}
	k.fn = k.try
	return k
}

func (k *sink) try(fd uintptr) bool {
	k.n, k.errno = writeFD(fd, k.p)
	return true // never wait
}

// write takes what the socket takes now.
func (k *sink) write(p []byte) (n int) {
	k.p = p
	err := k.raw.Write(k.fn)
	n, k.p = k.n, nil
	k.n = 0
	switch {
	case err != nil:
		k.err = err
		return 0
	case k.errno != nil && k.errno != syscall.EAGAIN:
		k.err = k.errno
	}
	if n > 0 {
		k.moved(n)
	}
	return n
}

// deliver gives one piece of DATA to the stream; only the tunnel's reader calls
// it. It never waits.
func (s *stream) deliver(p []byte) {
	if s.udp != nil {
		s.deliverCapsules(p)
		return
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.rerr != nil {
		return // reset here; the peer does not know yet
	}
	if s.sink != nil && s.q.len == 0 {
		n := s.sink.write(p)
		s.consumedLocked(n)
		p = p[n:]
	}
	if len(p) > 0 || s.sink != nil && s.sink.err != nil {
		s.q.add(p)
		s.sink = nil
		s.rcond.Broadcast()
	}
}

// consumedLocked gives credit back to the peer when there is enough of it; rmu
// is held.
func (s *stream) consumedLocked(n int) {
	if n == 0 || s.rerr != nil {
		return
	}
	t := s.t
	if give := s.window.consume(n, t.rtt(), t.tuning.MaxStreamWindow); give > 0 {
		t.control(func(f *http2.Framer) { f.WriteWindowUpdate(s.id, uint32(give)) })
	}
}

// arrived checks n bytes of DATA against the window.
func (s *stream) arrived(n int) bool {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	s.window.left -= n
	return s.window.left >= 0 || s.rerr != nil
}

// endReceive says that nothing more comes. With drop, what waits is given up.
func (s *stream) endReceive(err error, drop bool) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if drop {
		s.q.drop()
	}
	if s.rerr == nil || drop && s.rerr == errEOF {
		s.rerr = err
	}
	if s.udp != nil {
		s.udp.endLocked(s.rerr, drop)
	}
	s.sink = nil
	s.window.end(s.t.tuning.StreamWindow)
	s.rcond.Broadcast()
}

// breakReceive is endReceive for an abort by the peer or of the tunnel: what
// came before may be read, and err then unless the end came first.
func (s *stream) breakReceive(err error) {
	s.endReceive(err, false)
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.broken == nil {
		s.broken = err
	}
	s.rcond.Broadcast()
}

// finished wakes who waits for the end of both halves.
func (s *stream) finished() {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	s.over = true
	s.readBy.stopLocked()
	s.rcond.Broadcast()
}

// Read implements hbone.Stream.
func (s *stream) Read(p []byte) (int, error) {
	switch {
	case s.udp != nil:
		return 0, hbone.ErrOnlyDatagrams
	case len(p) == 0:
		return 0, nil
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for s.q.len == 0 || s.readBy.passed {
		switch {
		case s.readBy.passed:
			return 0, os.ErrDeadlineExceeded
		case s.rerr != nil:
			return 0, s.rerr
		}
		s.rcond.Wait()
	}
	n := s.q.read(p)
	s.consumedLocked(n)
	return n, nil
}

// WriteTo implements hbone.Stream. While the queue is empty and w is a
// hbone.Socket, the tunnel's reader writes to it directly.
func (s *stream) WriteTo(w io.Writer) (total int64, err error) {
	if s.udp != nil {
		return 0, hbone.ErrOnlyDatagrams
	}
	k := newSink(w)
	if k != nil {
		moved := k.moved
		k.moved = func(n int) { total += int64(n); moved(n) } // under rmu
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	defer func() { s.sink = nil }()
	for {
		if err := s.awaitLocked(k); err != nil {
			if err == errEOF {
				err = nil
			}
			return total, err
		}
		c := s.q.take()
		s.rmu.Unlock()
		n, err := w.Write(c.buf[c.r:c.w])
		s.q.free(c)
		s.rmu.Lock()
		total += int64(n)
		s.consumedLocked(n)
		if err != nil {
			return total, err
		}
	}
}

// awaitLocked waits for something in the queue, offering k to the reader
// meanwhile; rmu is held. io.EOF is the end.
func (s *stream) awaitLocked(k *sink) error {
	for s.q.len == 0 || s.readBy.passed {
		switch {
		case s.readBy.passed:
			return os.ErrDeadlineExceeded
		case k != nil && k.err != nil:
			return k.err
		case s.rerr != nil:
			return s.rerr
		}
		s.sink = k
		s.rcond.Wait()
	}
	s.sink = nil
	return nil
}

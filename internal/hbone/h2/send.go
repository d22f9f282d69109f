package h2

import (
	"errors"
	"io"
	"syscall"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// Write implements hbone.Stream.
func (s *stream) Write(p []byte) (total int, err error) {
	switch {
	case s.udp != nil:
		return 0, hbone.ErrOnlyDatagrams
	case len(p) == 0:
		return 0, nil
	}
	return s.write(p)
}

func (s *stream) write(p []byte) (int, error) {
	if len(p) <= smallLen-frameHeaderLen {
		b := getSmall()
		defer smallBufs.Put(b)
		return s.writeVia(b[:], p)
	}
	b := getFrame()
	defer frameBufs.Put(b)
	return s.writeVia(b[:], p)
}

// writeVia copies p into b, behind the room for a header, piece by piece.
func (s *stream) writeVia(b, p []byte) (total int, err error) {
	for len(p) > 0 {
		n, err := s.reserve(min(len(p), len(b)-frameHeaderLen))
		if err != nil {
			return total, err
		}
		copy(b[frameHeaderLen:], p[:n])
		if err := s.send(b, n); err != nil {
			return total, err
		}
		total += n
		p = p[n:]
	}
	return total, nil
}

// send writes the n bytes behind the header room of b, for which windows have
// been reserved.
func (s *stream) send(b []byte, n int) error {
	t := s.t
	t.lockWrite()
	defer t.unlockWrite()
	return s.sendLocked(b, n)
}

// sendLocked cuts b[9:9+n] into frames. Each header but the first goes over the
// end of the payload before it, which has been encrypted by then. wmu is held.
func (s *stream) sendLocked(b []byte, n int) error {
	t := s.t
	if err := t.writeControlLocked(); err != nil {
		return err
	}
	t.mu.Lock()
	err, most := s.serr, min(t.peerMax, payloadLen)
	t.mu.Unlock()
	if err != nil {
		return err
	}
	if n > recordLen-frameHeaderLen {
		t.wire.gather()
	}
	for off := 0; off < n && err == nil; {
		m := min(most, n-off)
		putHeader(b[off:], m, 0, s.id)
		err = t.writeLocked(b[off : off+frameHeaderLen+m])
		t.earn(m)
		off += m
	}
	if e := t.wire.flush(); e != nil && err == nil {
		err = t.brokenLocked(e)
	}
	return err
}

// ReadFrom implements hbone.Stream.
func (s *stream) ReadFrom(r io.Reader) (int64, error) {
	if s.udp != nil {
		return 0, hbone.ErrOnlyDatagrams
	}
	src := newSource(s, r)
	for {
		if err := src.step(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return src.total, err
		}
	}
}

// source moves bytes from an application's socket into a stream. It waits for
// the window first and for the socket then, without a buffer; reads what is
// there into a small one; and only if that was filled, and the tunnel's turn to
// write has come, reads the rest into a big one.
type source struct {
	s     *stream
	r     io.Reader
	raw   syscall.RawConn // nil where r is no socket
	moved func(int)
	fn    func(fd uintptr) bool // try
	nowFn func(fd uintptr) bool // tryNow
	total int64

	small *smallBuf
	p     []byte
	n     int
	errno error
}

func newSource(s *stream, r io.Reader) *source {
	src := &source{s: s, r: r}
	if so, ok := r.(hbone.Socket); ok {
		if raw, err := so.SyscallConn(); err == nil {
			src.raw, src.moved = raw, so.Moved
		}
	}
	src.fn, src.nowFn = src.try, src.tryNow
	return src
}

// step moves one piece.
func (src *source) step() error {
	most, err := src.s.awaitWindow()
	if err != nil {
		return err
	}
	n, err := src.readSmall(min(most, smallLen-frameHeaderLen))
	if n > 0 {
		if e := src.forward(n); e != nil {
			err = e
		}
	}
	if src.small != nil {
		smallBufs.Put(src.small)
		src.small = nil
	}
	return err
}

func (src *source) readSmall(most int) (int, error) {
	if src.raw == nil {
		src.small = getSmall()
		return src.r.Read(src.small[frameHeaderLen : frameHeaderLen+most])
	}
	src.n = most // how much try may read
	if err := src.raw.Read(src.fn); err != nil {
		return 0, err
	}
	return src.result()
}

// try reads into a small buffer, which it keeps only if it was of use.
func (src *source) try(fd uintptr) bool {
	b := getSmall()
	n, errno := readFD(fd, b[frameHeaderLen:frameHeaderLen+src.n])
	if errno == syscall.EAGAIN || n == 0 {
		smallBufs.Put(b)
	} else {
		src.small = b
	}
	if errno == syscall.EAGAIN {
		return false
	}
	src.n, src.errno = n, errno
	return true
}

func (src *source) result() (int, error) {
	switch {
	case src.errno != nil:
		return 0, src.errno
	case src.n == 0:
		return 0, io.EOF
	}
	src.moved(src.n)
	src.total += int64(src.n)
	return src.n, nil
}

// forward sends the n bytes in the small buffer, with what follows them.
func (src *source) forward(n int) error {
	s := src.s
	if src.raw == nil {
		src.total += int64(n)
	}
	for sent := 0; sent < n; {
		m, err := s.reserve(n - sent)
		if err != nil {
			return err
		}
		if m == smallLen-frameHeaderLen && src.raw != nil {
			return src.bulk(m)
		}
		if err := s.send(src.small[sent:], m); err != nil {
			return err
		}
		sent += m
	}
	return nil
}

// bulk sends the full small buffer and as much of what follows as the windows
// and a big buffer take. The buffer is had under wmu, so a tunnel holds one.
func (src *source) bulk(n int) error {
	s, t := src.s, src.s.t
	t.lockWrite()
	defer t.unlockWrite()
	b := getChunk()
	defer chunkBufs.Put(b)
	copy(b[frameHeaderLen:], src.small[frameHeaderLen:])
	more := s.tryReserve(chunkLen - frameHeaderLen - n)
	m, err := src.readNow(b[frameHeaderLen+n:][:more])
	s.refund(more - m)
	if e := s.sendLocked(b[:], n+m); e != nil {
		return e
	}
	return err
}

// readNow reads without waiting.
func (src *source) readNow(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	src.p = p
	err := src.raw.Read(src.nowFn)
	src.p = nil
	if err != nil {
		return 0, err
	}
	if src.errno == syscall.EAGAIN {
		return 0, nil
	}
	return src.result()
}

func (src *source) tryNow(fd uintptr) bool {
	src.n, src.errno = readFD(fd, src.p)
	return true
}

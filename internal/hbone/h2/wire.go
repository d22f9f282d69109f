package h2

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"syscall"
)

// wire is the connection below crypto/tls. crypto/tls reads a record or two and
// writes exactly one record with each system call; wire reads as many as there
// are and writes many at once. It holds a buffer only while bytes wait in it.
type wire struct {
	net.Conn
	raw syscall.RawConn // nil where the connection is no socket

	// The reading side belongs to whoever reads from the tls.Conn.
	in     *wireBuf
	r, w   int
	record int                   // what remains of the record that crypto/tls is reading
	head   [recordHeaderLen]byte // the beginning of a header, while waiting for the rest
	headed int
	fillFn func(fd uintptr) bool
	nread  int
	errno  error

	// The writing side: crypto/tls may answer a key update from the reading
	// goroutine, so what is gathered has a lock of its own.
	omu    sync.Mutex
	out    *wireBuf // not nil while gathering
	outLen int
}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			w.raw = raw
		}
	}
	w.fillFn = w.fillRaw
	return w
}

const recordHeaderLen = 5

// Read gives at most to the end of the current record. So crypto/tls never
// holds the beginning of the next one, and hasRecord speaks the truth.
func (w *wire) Read(p []byte) (int, error) {
	if w.raw == nil {
		return w.Conn.Read(p)
	}
	for w.record == 0 && w.w-w.r < recordHeaderLen || w.w == w.r {
		if err := w.fill(); err != nil {
			return 0, err
		}
	}
	if w.record == 0 {
		w.record = w.nextRecord()
	}
	n := copy(p, w.in[w.r:min(w.w, w.r+w.record)])
	w.r += n
	w.record -= n
	if w.r == w.w {
		w.release()
	}
	return n, nil
}

func (w *wire) nextRecord() int {
	return recordHeaderLen + int(binary.BigEndian.Uint16(w.in[w.r+3:]))
}

// hasRecord reports whether a whole record waits here, so that a read from the
// tls.Conn would not wait for the network.
func (w *wire) hasRecord() bool {
	return w.record == 0 && w.w-w.r >= recordHeaderLen && w.w-w.r >= w.nextRecord()
}

func (w *wire) release() {
	wireBufs.Put(w.in)
	w.in, w.r, w.w = nil, 0, 0
}

// fill reads once, behind what is buffered, which is less than a header.
func (w *wire) fill() error {
	if w.r > 0 {
		w.w = copy(w.in[:], w.in[w.r:w.w])
		w.r = 0
	}
	if err := w.raw.Read(w.fillFn); err != nil {
		return err
	}
	switch {
	case w.errno != nil:
		return &net.OpError{Op: "read", Net: "tcp", Source: w.LocalAddr(), Addr: w.RemoteAddr(), Err: w.errno}
	case w.nread == 0:
		return io.EOF
	}
	w.w += w.nread
	return nil
}

// fillRaw takes a buffer only to find it filled or to give it back, so that a
// connection waits without one: also one of which just the beginning of a header
// has come, which costs a hostile peer nothing.
func (w *wire) fillRaw(fd uintptr) bool {
	if w.in == nil {
		w.in = getWire()
		w.w = copy(w.in[:], w.head[:w.headed])
		w.headed = 0
	}
	w.nread, w.errno = readFD(fd, w.in[w.w:])
	if w.errno != nil || w.nread == 0 {
		w.headed = copy(w.head[:], w.in[:w.w])
		w.release()
	}
	return w.errno != syscall.EAGAIN
}

// Write sends one record, or adds it to what is being gathered.
func (w *wire) Write(p []byte) (int, error) {
	w.omu.Lock()
	defer w.omu.Unlock()
	if w.out == nil {
		return w.Conn.Write(p)
	}
	if w.outLen+len(p) > len(w.out) {
		if err := w.sendLocked(); err != nil {
			return 0, err
		}
		if len(p) > len(w.out) {
			return w.Conn.Write(p)
		}
	}
	w.outLen += copy(w.out[w.outLen:], p)
	return len(p), nil
}

// gather holds back what is written until flush.
func (w *wire) gather() {
	w.omu.Lock()
	w.out = getWire()
	w.omu.Unlock()
}

// flush sends what was gathered and ends the gathering.
func (w *wire) flush() error {
	w.omu.Lock()
	defer w.omu.Unlock()
	if w.out == nil {
		return nil
	}
	err := w.sendLocked()
	wireBufs.Put(w.out)
	w.out = nil
	return err
}

func (w *wire) sendLocked() error {
	if w.outLen == 0 {
		return nil
	}
	_, err := w.Conn.Write(w.out[:w.outLen])
	w.outLen = 0
	return err
}

// readFD and writeFD are one try on a non-blocking descriptor.
func readFD(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

func writeFD(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

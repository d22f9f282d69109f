package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// End is one side: a *net.TCPConn or an hbone.Stream. Others work and are
// copied through a buffer.
type End interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// Counts are the bytes moved, readable while a relay runs. The zero value is
// ready.
type Counts struct{ ab, ba atomic.Uint64 }

// Load gives the bytes from the relay's first end to its second, and back.
func (c *Counts) Load() (ab, ba uint64) { return c.ab.Load(), c.ba.Load() }

// Add counts bytes that were carried before the relay began.
func (c *Counts) Add(ab, ba uint64) { c.ab.Add(ab); c.ba.Add(ba) }

// Options change how a connection is carried.
type Options struct {
	// HalfOpen ends a connection when one direction has ended and the other has
	// carried nothing for so long. Zero: never, as TCP does.
	HalfOpen time.Duration
}

// Errors of Run; both come wrapped with the place where it happened.
var (
	// ErrHalfOpen is the end of Options.HalfOpen.
	ErrHalfOpen = errors.New("half-open for too long")
)

// Run relays between a and b with the zero Options.
func Run(ctx context.Context, a, b End, c *Counts) error {
	return Options{}.Run(ctx, a, b, c)
}

// Run relays between a and b. It owns both and has closed both when it returns,
// after both directions have ended or the first error in either.
//
// It returns nil if both directions ended orderly. Otherwise both ends were
// reset and the error says which end broke and how: syscall.ECONNRESET and its
// like for a socket, hbone.ErrReset for a stream, context.Cause(ctx) if ctx
// ended. c may be nil.
func (o Options) Run(ctx context.Context, a, b End, c *Counts) error {
	if c == nil {
		c = new(Counts)
	}
	r := &run{a: a, b: b, counts: c}
	stop := context.AfterFunc(ctx, func() { r.abort(context.Cause(ctx)) })
	defer stop()
	if o.HalfOpen > 0 {
		r.halfOpen = o.HalfOpen
		defer r.stopTimer()
	}
	var back sync.WaitGroup
	back.Go(func() { r.direction(a, b, "second", &c.ba) })
	r.direction(b, a, "first", &c.ab)
	back.Wait()
	a.Close()
	b.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

type run struct {
	a, b     End
	counts   *Counts
	halfOpen time.Duration

	mu    sync.Mutex
	ended int // directions that are over
	err   error
	timer *time.Timer
	moved uint64 // at the timer's last look
}

// direction carries src to dst until its end, and then watches src until the
// other direction has ended too.
func (r *run) direction(dst, src End, name string, n *atomic.Uint64) {
	err := transfer(dst, src, n)
	if err == nil {
		err = dst.CloseWrite()
		if errors.Is(err, net.ErrClosed) || isNotConnected(err) {
			err = nil // the other direction's error says more, if there is one
		}
	}
	if err != nil {
		r.abort(fmt.Errorf("relaying from the %s end: %w", name, err))
		return
	}
	if r.endDirection() {
		unwatch(r.a)
		unwatch(r.b)
		return
	}
	if err := awaitReset(src); err != nil && !r.over() {
		r.abort(fmt.Errorf("%s end, half-closed: %w", name, err))
	}
}

// endDirection reports whether both are over.
func (r *run) endDirection() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended++
	if r.ended == 1 && r.halfOpen > 0 && r.err == nil {
		r.moved = r.total()
		r.timer = time.AfterFunc(r.halfOpen, r.checkHalfOpen)
	}
	return r.ended == 2
}

func (r *run) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended == 2
}

func (r *run) total() uint64 { return r.counts.ab.Load() + r.counts.ba.Load() }

func (r *run) checkHalfOpen() {
	r.mu.Lock()
	idle := r.total() == r.moved
	r.moved = r.total()
	if !idle && r.ended < 2 {
		r.timer.Reset(r.halfOpen)
	}
	r.mu.Unlock()
	if idle {
		r.abort(ErrHalfOpen)
	}
}

func (r *run) stopTimer() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
}

// abort resets both ends; the first reason stays.
func (r *run) abort(err error) {
	r.mu.Lock()
	if r.err != nil || r.ended == 2 {
		r.mu.Unlock()
		return
	}
	r.err = err
	r.mu.Unlock()
	Reset(r.a)
	Reset(r.b)
}

// Reset closes an end so that its peer sees a reset.
func Reset(e End) {
	switch e := e.(type) {
	case interface{ Reset() error }: // a hbone.Stream is one
		e.Reset()
	case *net.TCPConn:
		e.SetLinger(0) // close then sends RST
		e.Close()
	default:
		e.Close()
	}
}

// transfer copies to the end of src by the shortest way.
func transfer(dst, src End, n *atomic.Uint64) error {
	from, isSocket := src.(*net.TCPConn)
	to, toSocket := dst.(*net.TCPConn)
	switch {
	case isSocket && toSocket:
		return splice(to, from, n)
	case isSocket:
		if rf, ok := dst.(io.ReaderFrom); ok {
			_, err := rf.ReadFrom(socket{from, n})
			return err
		}
	case toSocket:
		if wt, ok := src.(io.WriterTo); ok {
			_, err := wt.WriteTo(socket{to, n})
			return err
		}
	}
	return copyBuffer(dst, src, n)
}

func copyBuffer(dst io.Writer, src io.Reader, n *atomic.Uint64) error {
	buf := make([]byte, 16<<10)
	for {
		m, err := src.Read(buf)
		if m > 0 {
			if _, err := dst.Write(buf[:m]); err != nil {
				return err
			}
			n.Add(uint64(m))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// socket is one direction of a TCP connection, counted; it implements
// hbone.Socket.
type socket struct {
	*net.TCPConn
	n *atomic.Uint64
}

var _ hbone.Socket = socket{}

func (s socket) Moved(n int) { s.n.Add(uint64(n)) }

func (s socket) Read(p []byte) (int, error) {
	n, err := s.TCPConn.Read(p)
	s.n.Add(uint64(n))
	return n, err
}

func (s socket) Write(p []byte) (int, error) {
	n, err := s.TCPConn.Write(p)
	s.n.Add(uint64(n))
	return n, err
}

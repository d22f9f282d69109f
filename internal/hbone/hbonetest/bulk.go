package hbonetest

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

const bulk = 24 << 20

// noise is bytes that a seed determines, in reads of uneven length.
type noise struct {
	bytes, sizes *rand.ChaCha8
	left         int
	moved        atomic.Int64 // how many were read
}

func newNoise(seed byte, n int) *noise {
	return &noise{bytes: rand.NewChaCha8([32]byte{seed}), sizes: rand.NewChaCha8([32]byte{seed, 1}), left: n}
}

func (s *noise) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), s.left, 1+int(s.sizes.Uint64()%100_000))
	s.left -= n
	s.moved.Add(int64(n))
	return s.bytes.Read(p[:n])
}

func sum(r io.Reader) (string, int64, error) {
	h := sha256.New()
	n, err := io.Copy(struct{ io.Writer }{h}, struct{ io.Reader }{r})
	return string(h.Sum(nil)), n, err
}

// socket is a TCP connection as relay hands it to a stream.
type socket struct {
	*net.TCPConn
	moved *atomic.Int64
}

func (s socket) Moved(n int) { s.moved.Add(int64(n)) }
func (s socket) Read(p []byte) (int, error) {
	n, err := s.TCPConn.Read(p)
	s.moved.Add(int64(n))
	return n, err
}
func (s socket) Write(p []byte) (int, error) {
	n, err := s.TCPConn.Write(p)
	s.moved.Add(int64(n))
	return n, err
}

// tcpPair is two ends of a connection on the loopback interface.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

var bulkTests = []test{
	{"many bytes both ways by Read and Write, unharmed", eachSide(func(t *testing.T, here, there hbone.Stream) {
		both(t, here, there, func(s hbone.Stream, from *noise) {
			if _, err := io.CopyBuffer(struct{ io.Writer }{s}, from, make([]byte, 100_000)); err != nil {
				t.Error(err)
			}
			s.CloseWrite()
		}, func(s hbone.Stream) (string, int64, error) { return sum(s) })
	})},
	{"many bytes both ways by ReadFrom and WriteTo, unharmed", eachSide(func(t *testing.T, here, there hbone.Stream) {
		both(t, here, there, func(s hbone.Stream, from *noise) {
			if n, err := s.ReadFrom(from); n != bulk || err != nil {
				t.Errorf("ReadFrom: %d, %v", n, err)
			}
			s.CloseWrite()
		}, func(s hbone.Stream) (string, int64, error) {
			h := sha256.New()
			n, err := s.WriteTo(struct{ hash.Hash }{h})
			return string(h.Sum(nil)), n, err
		})
	})},
	{"many bytes both ways between sockets, unharmed and counted", eachSide(func(t *testing.T, here, there hbone.Stream) {
		both(t, here, there, func(s hbone.Stream, from *noise) {
			app, mesh := tcpPair(t)
			go func() {
				io.Copy(struct{ io.Writer }{app}, from)
				app.CloseWrite()
			}()
			so := socket{mesh, new(atomic.Int64)}
			if n, err := s.ReadFrom(so); n != bulk || err != nil || so.moved.Load() != n {
				t.Errorf("ReadFrom: %d, %v, counted %d", n, err, so.moved.Load())
			}
			s.CloseWrite()
		}, func(s hbone.Stream) (got string, n int64, err error) {
			app, mesh := tcpPair(t)
			so := socket{mesh, new(atomic.Int64)}
			var read sync.WaitGroup
			var read64 int64
			read.Go(func() { got, read64, _ = sum(app) })
			n, err = s.WriteTo(so)
			mesh.CloseWrite()
			read.Wait()
			if n != read64 || so.moved.Load() != n {
				t.Errorf("WriteTo: %d, counted %d, read %d", n, so.moved.Load(), read64)
			}
			return got, n, err
		})
	})},
	{"streams that are not read hold up nobody", func(t *testing.T, tr Transport) {
		h, next := handing(t)
		r := newRig(t, tr, h)
		var stalled []hbone.Stream
		for range 20 { // far more than a shared window of the usual size takes
			s := r.open()
			there := next()
			stalled = append(stalled, s)
			go s.ReadFrom(endless{})
			go there.ReadFrom(endless{})
		}
		here := r.open()
		there := next()
		both(t, here, there, func(s hbone.Stream, from *noise) {
			if _, err := s.ReadFrom(from); err != nil {
				t.Error(err)
			}
			s.CloseWrite()
		}, func(s hbone.Stream) (string, int64, error) { return sum(s) })
		for _, s := range stalled {
			s.Reset()
		}
		until(t, "streams are gone", func() bool { return r.tunnel.Streams() == 0 })
	}},
	{"an application's socket that is not read holds up nobody", func(t *testing.T, tr Transport) {
		h, next := handing(t)
		r := newRig(t, tr, h)
		s := r.open()
		stalled := next()
		_, mesh := tcpPair(t)
		go stalled.WriteTo(socket{mesh, new(atomic.Int64)})
		go s.ReadFrom(endless{})
		here := r.open()
		there := next()
		both(t, here, there, func(s hbone.Stream, from *noise) {
			if _, err := s.ReadFrom(from); err != nil {
				t.Error(err)
			}
			s.CloseWrite()
		}, func(s hbone.Stream) (string, int64, error) { return sum(s) })
		s.Reset()
		mesh.Close()
	}},
	{"an error of the application's socket ends WriteTo with it", sides(func(t *testing.T, here, there hbone.Stream) {
		app, mesh := tcpPair(t)
		done := make(chan error, 1)
		go func() { _, err := there.WriteTo(socket{mesh, new(atomic.Int64)}); done <- err }()
		app.SetLinger(0)
		app.Close()
		go here.ReadFrom(endless{})
		if err := <-done; err == nil || errors.Is(err, hbone.ErrReset) || errors.Is(err, hbone.ErrClosed) {
			t.Errorf("WriteTo: %v, want the socket's error", err)
		}
		there.Close()
	})},
	{"an error of the application's socket ends ReadFrom with it", sides(func(t *testing.T, here, there hbone.Stream) {
		app, mesh := tcpPair(t)
		done := make(chan error, 1)
		go func() { _, err := here.ReadFrom(socket{mesh, new(atomic.Int64)}); done <- err }()
		app.SetLinger(0)
		app.Close()
		if err := <-done; err == nil || errors.Is(err, hbone.ErrReset) || errors.Is(err, hbone.ErrClosed) {
			t.Errorf("ReadFrom: %v, want the socket's error", err)
		}
		here.Reset()
	})},
}

// both sends noise each way at once and compares what arrives. It may take as
// long as it takes while something moves.
func both(t *testing.T, here, there hbone.Stream, send func(hbone.Stream, *noise), receive func(hbone.Stream) (string, int64, error)) {
	t.Helper()
	var all sync.WaitGroup
	var sent [2]*noise
	way := func(from, to hbone.Stream, seed byte) {
		source := newNoise(seed, bulk)
		sent[seed-1] = source
		all.Go(func() { send(from, source) })
		all.Go(func() {
			want, _, _ := sum(newNoise(seed, bulk))
			if got, n, err := receive(to); got != want || err != nil {
				t.Errorf("way %d: %d bytes, %v, same: %v", seed, n, err, got == want)
			}
		})
	}
	way(here, there, 1)
	way(there, here, 2)
	doWhile(t, "both ways", func() int64 { return sent[0].moved.Load() + sent[1].moved.Load() }, all.Wait)
}

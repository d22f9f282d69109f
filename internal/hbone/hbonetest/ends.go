package hbonetest

import (
	"errors"
	"io"
	"testing"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// sides runs a test from both ends of a stream, that should be over soon.
func sides(f func(t *testing.T, here, there hbone.Stream)) func(*testing.T, Transport) {
	return eachSide(func(t *testing.T, here, there hbone.Stream) {
		do(t, t.Name(), func() { f(t, here, there) })
	})
}

// eachSide is sides of a test that sees to its end itself.
func eachSide(f func(t *testing.T, here, there hbone.Stream)) func(*testing.T, Transport) {
	return func(t *testing.T, tr Transport) {
		for _, name := range []string{"client", "server"} {
			t.Run(name, func(t *testing.T) {
				h, next := handing(t)
				r := newRig(t, tr, h)
				here := r.open()
				there := next()
				if name == "server" {
					here, there = there, here
				}
				f(t, here, there)
				until(t, "streams are gone", func() bool { return r.tunnel.Streams() == 0 })
			})
		}
	}
}

func readAll(t *testing.T, s hbone.Stream, want string) {
	t.Helper()
	if got, err := io.ReadAll(s); err != nil || string(got) != want {
		t.Errorf("read %q, %v; want %q", got, err, want)
	}
}

func write(t *testing.T, s hbone.Stream, text string) {
	t.Helper()
	if _, err := io.WriteString(s, text); err != nil {
		t.Errorf("write: %v", err)
	}
}

func wantReset(t *testing.T, s hbone.Stream) {
	t.Helper()
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{s}); !errors.Is(err, hbone.ErrReset) {
		t.Errorf("read: %v, want ErrReset", err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, hbone.ErrReset) {
		t.Errorf("write: %v, want ErrReset", err)
	}
}

var endTests = []test{
	{"one end half-closes first, the other goes on sending", sides(func(t *testing.T, here, there hbone.Stream) {
		write(t, here, "request")
		if err := here.CloseWrite(); err != nil {
			t.Error(err)
		}
		readAll(t, there, "request")
		if _, err := here.Write([]byte("x")); !errors.Is(err, hbone.ErrClosed) {
			t.Errorf("write after half-close: %v, want ErrClosed", err)
		}
		if err := here.CloseWrite(); err != nil {
			t.Errorf("second half-close: %v", err)
		}
		write(t, there, "answer ")
		write(t, there, "in two parts")
		there.CloseWrite()
		readAll(t, here, "answer in two parts")
		if err := errors.Join(here.Close(), there.Close(), here.Close()); err != nil {
			t.Error(err)
		}
	})},
	{"a half-close before any byte", sides(func(t *testing.T, here, there hbone.Stream) {
		here.CloseWrite()
		readAll(t, there, "")
		there.CloseWrite()
		readAll(t, here, "")
	})},
	{"a reset is a reset at the other end, also for who waits already", sides(func(t *testing.T, here, there hbone.Stream) {
		write(t, here, "begun")
		if _, err := io.ReadFull(there, make([]byte, 5)); err != nil {
			t.Error(err)
		}
		waiting := make(chan error, 1)
		go func() { _, err := there.WriteTo(io.Discard); waiting <- err }()
		if err := here.Reset(); err != nil {
			t.Error(err)
		}
		if err := <-waiting; !errors.Is(err, hbone.ErrReset) {
			t.Errorf("WriteTo: %v, want ErrReset", err)
		}
		wantReset(t, there)
		if _, err := here.Read(make([]byte, 1)); !errors.Is(err, hbone.ErrClosed) {
			t.Errorf("own read after reset: %v, want ErrClosed", err)
		}
		if _, err := here.Write([]byte("x")); !errors.Is(err, hbone.ErrClosed) {
			t.Errorf("own write after reset: %v, want ErrClosed", err)
		}
	})},
	{"what came before a reset is read first", sides(func(t *testing.T, here, there hbone.Stream) {
		write(t, here, "last words")
		here.Reset()
		got, err := io.ReadAll(there)
		if string(got) != "last words" || !errors.Is(err, hbone.ErrReset) {
			t.Errorf("read %q, %v", got, err)
		}
	})},
	{"a close without both ends is a reset", sides(func(t *testing.T, here, there hbone.Stream) {
		here.CloseWrite()
		here.Close()
		if _, err := there.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v, want the EOF that came first", err)
		}
		if w, ok := there.(hbone.ResetWaiter); ok {
			if err := w.AwaitReset(); !errors.Is(err, hbone.ErrReset) {
				t.Errorf("AwaitReset: %v, want ErrReset", err)
			}
		}
		until(t, "writes fail", func() bool { _, err := there.Write([]byte("x")); return errors.Is(err, hbone.ErrReset) })
	})},
	{"a reset ends a write that waits for the other's window", sides(func(t *testing.T, here, there hbone.Stream) {
		stuck := make(chan error, 1)
		go func() {
			_, err := there.ReadFrom(endless{})
			stuck <- err
		}()
		if _, err := io.ReadFull(here, make([]byte, 100)); err != nil {
			t.Error(err)
		}
		here.Reset()
		if err := <-stuck; !errors.Is(err, hbone.ErrReset) {
			t.Errorf("ReadFrom: %v, want ErrReset", err)
		}
	})},
	{"streams that were reset at either end make room for others", func(t *testing.T, tr Transport) {
		type held struct {
			hbone.Stream
			release chan bool
		}
		streams := make(chan held, 1)
		r := newRig(t, tr, accept(func(in hbone.Incoming, s hbone.Stream) {
			h := held{s, make(chan bool)}
			streams <- h
			select {
			case <-h.release:
			case <-in.Context().Done():
			}
		}))
		for i := range 7 * r.tunnel.Capacity() {
			here := r.open()
			far := <-streams
			there := far.Stream
			if i%3 == 0 {
				here, there = there, here
			}
			here.Reset()
			if _, err := io.Copy(io.Discard, struct{ io.Reader }{there}); !errors.Is(err, hbone.ErrReset) {
				t.Errorf("read: %v, want ErrReset", err)
			}
			there.Close() // without a write, which would have been told too
			close(far.release)
			until(t, "the stream is gone", func() bool { return r.tunnel.Streams() == 0 })
		}
	}},
	{"the end of a stream that ended well is no reset", sides(func(t *testing.T, here, there hbone.Stream) {
		w, ok := there.(hbone.ResetWaiter)
		if !ok {
			t.Skip("transport has no ResetWaiter")
		}
		here.CloseWrite()
		readAll(t, there, "")
		there.CloseWrite()
		if err := w.AwaitReset(); err != nil {
			t.Errorf("AwaitReset: %v", err)
		}
	})},
}

// endless is a source without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

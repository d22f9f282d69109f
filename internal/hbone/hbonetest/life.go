package hbonetest

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

func done(t *testing.T, tunnel hbone.Tunnel) {
	t.Helper()
	select {
	case <-tunnel.Done():
	case <-time.After(Patience):
		t.Fatal("the tunnel is not done")
	}
}

var lifeTests = []test{
	{"a draining server lets streams end and takes no new ones", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, accept(echo))
		s := r.open()
		pingPong(t, s, "before")
		drained := make(chan error, 1)
		go func() { drained <- r.server.Drain(within(t)) }()
		done(t, r.tunnel)
		if _, _, err := r.tunnel.Open(within(t), hbone.Request{Authority: "a:1"}); !errors.Is(err, hbone.ErrDraining) {
			t.Errorf("Open: %v, want ErrDraining", err)
		}
		if _, err := r.dialer.Dial(within(t), r.target()); err == nil {
			t.Error("a draining server accepts a tunnel")
		}
		pingPong(t, s, "during")
		select {
		case err := <-drained:
			t.Fatalf("Drain returned with a stream open: %v", err)
		default:
		}
		s.CloseWrite()
		readAll(t, s, "")
		if err := <-drained; err != nil {
			t.Errorf("Drain: %v", err)
		}
		r.awaitServed()
	}},
	{"a drain that takes too long is cut", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, accept(echo))
		s := r.open()
		ctx, cancel := context.WithCancel(context.Background())
		drained := make(chan error, 1)
		go func() { drained <- r.server.Drain(ctx) }()
		done(t, r.tunnel)
		cancel()
		if err := <-drained; !errors.Is(err, context.Canceled) {
			t.Errorf("Drain: %v, want context.Canceled", err)
		}
		wantReset(t, s)
	}},
	{"a server drains while nothing is open", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, accept(echo))
		if err := r.server.Drain(within(t)); err != nil {
			t.Error(err)
		}
		done(t, r.tunnel)
		r.awaitServed()
	}},
	{"a draining client lets streams end", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, accept(echo))
		s := r.open()
		drained := make(chan error, 1)
		go func() { drained <- r.tunnel.Drain(within(t)) }()
		done(t, r.tunnel)
		if _, _, err := r.tunnel.Open(within(t), hbone.Request{Authority: "a:1"}); !errors.Is(err, hbone.ErrDraining) {
			t.Errorf("Open: %v, want ErrDraining", err)
		}
		pingPong(t, s, "during")
		s.CloseWrite()
		readAll(t, s, "")
		if err := <-drained; err != nil {
			t.Errorf("Drain: %v", err)
		}
	}},
	{"a closed tunnel resets its streams at the other end", func(t *testing.T, tr Transport) {
		h, next := handing(t)
		r := newRig(t, tr, h)
		s := r.open()
		there := next()
		r.tunnel.Close()
		r.tunnel.Close()
		done(t, r.tunnel)
		wantReset(t, there)
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, hbone.ErrClosed) {
			t.Errorf("read: %v, want ErrClosed", err)
		}
		if _, err := s.Write([]byte("x")); !errors.Is(err, hbone.ErrClosed) {
			t.Errorf("write: %v, want ErrClosed", err)
		}
	}},
	{"the end of the server's context cuts everything", func(t *testing.T, tr Transport) {
		cut := make(chan bool, 1)
		r := newRig(t, tr, accept(func(in hbone.Incoming, s hbone.Stream) {
			<-in.Context().Done()
			cut <- true
		}))
		s := r.open()
		r.stop()
		wantReset(t, s)
		<-cut
		r.awaitServed()
		done(t, r.tunnel)
	}},
	{"what arrived before its sender left for good is delivered", func(t *testing.T, tr Transport) {
		// The end of the connection may come before or after the reading; in a few
		// rounds it does both.
		for range 8 {
			h, next := handing(t)
			r := newRig(t, tr, h)
			s := r.open()
			there := next()
			write(t, s, "all of it")
			s.CloseWrite()
			there.CloseWrite()
			readAll(t, s, "")
			s.Close()
			if err := r.tunnel.Drain(within(t)); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(there); string(got) != "all of it" || err != nil {
				t.Fatalf("read %q, %v", got, err)
			}
		}
	}},
	{"a stream ended well is not cut by its tunnel's end", func(t *testing.T, tr Transport) {
		ended := make(chan error, 1)
		release := make(chan bool)
		r := newRig(t, tr, accept(func(in hbone.Incoming, s hbone.Stream) {
			s.CloseWrite()
			<-release
			if _, err := io.ReadAll(s); err != nil {
				ended <- err
				return
			}
			ended <- in.Context().Err()
		}))
		s := r.open()
		write(t, s, "bytes")
		s.CloseWrite()
		readAll(t, s, "")
		s.Close()
		r.tunnel.Drain(within(t))
		close(release)
		if err := <-ended; err != nil {
			t.Errorf("handler: %v", err)
		}
	}},
}

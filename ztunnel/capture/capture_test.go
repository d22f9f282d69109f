package capture

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

func serve(t *testing.T, h Handler) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return Serve(l.(*net.TCPListener), h, most, slog.New(slog.DiscardHandler)), l.Addr().String()
}

// most is how many connections the tests' servers take at once.
const most = 5

func TestMoreThanTheMostWait(t *testing.T) {
	began, release := make(chan struct{}, 2*most), make(chan struct{})
	s, at := serve(t, func(_ context.Context, c *net.TCPConn) {
		defer c.Close()
		began <- struct{}{}
		<-release
		io.Copy(c, c)
	})
	conns := make([]net.Conn, 2*most)
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("tcp", at); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	for range most {
		<-began
	}
	if n := len(s.places); n != most {
		t.Errorf("%d are served at once", n)
	}
	close(release)
	for _, c := range conns { // nobody was lost
		echo(t, c)
		c.Close()
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestADrainWaitsForWhatWasAccepted(t *testing.T) {
	s, at := serve(t, func(_ context.Context, c *net.TCPConn) {
		defer c.Close()
		io.Copy(c, c)
	})
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	echo(t, c)
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(t.Context()) }()
	for { // until the listener is closed
		d, err := net.Dial("tcp", at)
		if err != nil {
			break
		}
		d.Close()
	}
	echo(t, c)
	select {
	case err := <-drained:
		t.Fatalf("drained (%v) with a connection open", err)
	default:
	}
	c.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestADrainCutsAtItsDeadline(t *testing.T) {
	began := make(chan struct{})
	s, at := serve(t, func(ctx context.Context, c *net.TCPConn) {
		defer c.Close()
		close(began)
		<-ctx.Done()
	})
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection lives on")
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Errorf("second drain: %v", err)
	}
}

func echo(t *testing.T, c net.Conn) {
	t.Helper()
	b := make([]byte, 4)
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
		t.Fatalf("echo %q, %v", b, err)
	}
}

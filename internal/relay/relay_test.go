package relay_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

const patience = 20 * time.Second

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
	deadline := time.Now().Add(patience)
	c.SetDeadline(deadline)
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// path is a way from one application to another through relays.
type path struct {
	client, server *net.TCPConn
	counts         []*relay.Counts
	cancel         context.CancelFunc
	errs           chan error // one for each relay
	relays         int
}

// plain is one relay between sockets.
func plain(t *testing.T, o relay.Options) *path {
	ctx, cancel := context.WithCancel(context.Background())
	p := &path{cancel: cancel, errs: make(chan error, 1), relays: 1, counts: []*relay.Counts{{}}}
	var a, b *net.TCPConn
	p.client, a = tcpPair(t)
	p.server, b = tcpPair(t)
	go func() { p.errs <- o.Run(ctx, a, b, p.counts[0]) }()
	t.Cleanup(cancel)
	return p
}

// tunnelled is two relays with a tunnel between them.
func tunnelled(t *testing.T, o relay.Options) *path {
	ctx, cancel := context.WithCancel(context.Background())
	p := &path{cancel: cancel, errs: make(chan error, 2), relays: 2, counts: []*relay.Counts{{}, {}}}
	var a, b *net.TCPConn
	p.client, a = tcpPair(t)
	p.server, b = tcpPair(t)
	id := certstest.ID("shop", "front")
	creds := certstest.New(t).Credentials(t, id)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := h2.NewServer(h2.ServerConfig{
		Listener: l, Credentials: creds,
		Self: func(context.Context) (spiffe.ID, error) { return id, nil },
		Handler: func(in hbone.Incoming) {
			if s, err := in.Accept(nil); err == nil {
				p.errs <- o.Run(ctx, s, b, p.counts[1])
			}
		},
	})
	served := make(chan error, 1)
	sctx, stop := context.WithCancel(context.Background())
	go func() { served <- server.Serve(sctx) }()
	tunnel, err := h2.NewDialer(h2.Config{Credentials: creds}).Dial(ctx, hbone.Target{
		Address: l.Addr().(*net.TCPAddr).AddrPort(), Self: id, Accept: []spiffe.ID{id},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := tunnel.Open(ctx, hbone.Request{Authority: netip.MustParseAddrPort("10.0.0.1:80").String()})
	if err != nil {
		t.Fatal(err)
	}
	go func() { p.errs <- o.Run(ctx, a, s, p.counts[0]) }()
	t.Cleanup(func() { cancel(); stop(); <-served; tunnel.Close() })
	return p
}

// results waits for all relays.
func (p *path) results(t *testing.T) (errs []error) {
	t.Helper()
	for range p.relays {
		select {
		case err := <-p.errs:
			errs = append(errs, err)
		case <-time.After(patience):
			t.Fatal("a relay does not return")
		}
	}
	return errs
}

func (p *path) wantOrderly(t *testing.T) {
	t.Helper()
	for _, err := range p.results(t) {
		if err != nil {
			t.Errorf("relay: %v", err)
		}
	}
}

func (p *path) wantErrors(t *testing.T) {
	t.Helper()
	for _, err := range p.results(t) {
		if err == nil {
			t.Error("a relay thinks that it ended orderly")
		} else {
			t.Log(err)
		}
	}
}

func wantRST(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{c}); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want ECONNRESET", err)
	}
}

func reset(c *net.TCPConn) { c.SetLinger(0); c.Close() }

func eachPath(t *testing.T, o relay.Options, f func(t *testing.T, p *path)) {
	t.Run("plain", func(t *testing.T) { f(t, plain(t, o)) })
	t.Run("tunnelled", func(t *testing.T) { f(t, tunnelled(t, o)) })
}

func TestHalfClosesPassBothWays(t *testing.T) {
	eachPath(t, relay.Options{}, func(t *testing.T, p *path) {
		io.WriteString(p.client, "request")
		p.client.CloseWrite()
		if got, err := io.ReadAll(p.server); string(got) != "request" || err != nil {
			t.Errorf("server read %q, %v", got, err)
		}
		io.WriteString(p.server, "answer")
		p.server.CloseWrite()
		if got, err := io.ReadAll(p.client); string(got) != "answer" || err != nil {
			t.Errorf("client read %q, %v", got, err)
		}
		p.wantOrderly(t)
		for _, c := range p.counts {
			if ab, ba := c.Load(); ab != 7 || ba != 6 {
				t.Errorf("counted %d, %d", ab, ba)
			}
		}
	})
}

func TestTheServerMayEndFirst(t *testing.T) {
	eachPath(t, relay.Options{}, func(t *testing.T, p *path) {
		p.server.CloseWrite()
		if got, err := io.ReadAll(p.client); len(got) > 0 || err != nil {
			t.Errorf("client read %q, %v", got, err)
		}
		io.WriteString(p.client, "late request")
		p.client.CloseWrite()
		if got, err := io.ReadAll(p.server); string(got) != "late request" || err != nil {
			t.Errorf("server read %q, %v", got, err)
		}
		p.wantOrderly(t)
	})
}

func TestAResetArrivesAtTheOtherEnd(t *testing.T) {
	eachPath(t, relay.Options{}, func(t *testing.T, p *path) {
		io.WriteString(p.client, "x")
		io.ReadFull(p.server, make([]byte, 1))
		reset(p.client)
		wantRST(t, p.server)
		p.wantErrors(t)
	})
}

func TestAResetByTheServerArrives(t *testing.T) {
	eachPath(t, relay.Options{}, func(t *testing.T, p *path) {
		io.WriteString(p.client, "x")
		io.ReadFull(p.server, make([]byte, 1))
		reset(p.server)
		wantRST(t, p.client)
		p.wantErrors(t)
	})
}

func TestAResetAfterAHalfCloseArrives(t *testing.T) {
	eachPath(t, relay.Options{}, func(t *testing.T, p *path) {
		p.client.CloseWrite()
		if _, err := io.ReadAll(p.server); err != nil {
			t.Error(err)
		}
		reset(p.client)
		// Only a write or the poller tells: a read has ended already.
		for end := time.Now().Add(patience); ; {
			if _, err := p.server.Write([]byte("x")); err != nil {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the server can still write")
			}
			time.Sleep(time.Millisecond)
		}
		p.wantErrors(t)
	})
}

func TestTheEndOfTheContextResetsBothEnds(t *testing.T) {
	for name, make := range map[string]func(*testing.T, relay.Options) *path{"plain": plain, "tunnelled": tunnelled} {
		t.Run(name, func(t *testing.T) {
			p := make(t, relay.Options{})
			io.WriteString(p.client, "x")
			io.ReadFull(p.server, []byte{0})
			p.cancel()
			wantRST(t, p.client)
			wantRST(t, p.server)
			p.wantErrors(t)
		})
	}
}

func TestHalfOpenForTooLongIsReset(t *testing.T) {
	eachPath(t, relay.Options{HalfOpen: 50 * time.Millisecond}, func(t *testing.T, p *path) {
		p.client.CloseWrite()
		wantRST(t, p.client)
		p.wantErrors(t)
	})
}

func TestManyBytesArriveUnharmed(t *testing.T) {
	const n = 32 << 20
	eachPath(t, relay.Options{}, func(t *testing.T, p *path) {
		var all sync.WaitGroup
		way := func(from, to *net.TCPConn, seed byte) {
			all.Go(func() {
				io.Copy(struct{ io.Writer }{from}, io.LimitReader(rand.NewChaCha8([32]byte{seed}), n))
				from.CloseWrite()
			})
			all.Go(func() {
				want, got := sha256.New(), sha256.New()
				io.Copy(want, io.LimitReader(rand.NewChaCha8([32]byte{seed}), n))
				m, err := io.Copy(got, struct{ io.Reader }{to})
				if m != n || err != nil || string(got.Sum(nil)) != string(want.Sum(nil)) {
					t.Errorf("way %d: %d bytes, %v", seed, m, err)
				}
			})
		}
		way(p.client, p.server, 1)
		way(p.server, p.client, 2)
		all.Wait()
		p.wantOrderly(t)
		for _, c := range p.counts {
			if ab, ba := c.Load(); ab != n || ba != n {
				t.Errorf("counted %d, %d", ab, ba)
			}
		}
	})
}

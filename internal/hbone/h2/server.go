package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// server accepts tunnels on one listener.
type server struct {
	cfg   ServerConfig
	slots chan struct{} // one for each connection

	mu       sync.Mutex
	tunnels  map[*tunnel]bool
	draining bool
	conns    sync.WaitGroup // each connection until its handlers have returned
}

// NewServer makes a server; Serve runs it.
func NewServer(cfg ServerConfig) hbone.Server {
	cfg.Tuning.fill(200)
	def(&cfg.FirstStreamTimeout, 10*time.Second)
	def(&cfg.MaxTunnels, 10_000)
	return &server{cfg: cfg, slots: make(chan struct{}, cfg.MaxTunnels), tunnels: map[*tunnel]bool{}}
}

// Serve implements hbone.Server.
func (s *server) Serve(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	err := s.accept(inner)
	if err != nil { // the listener failed: nothing may outlive us
		s.cut()
		cancel()
	}
	s.conns.Wait()
	return err
}

// cut ends everything.
func (s *server) cut() {
	s.stopAccepting()
	for _, t := range s.all() {
		t.fail(hbone.ErrClosed)
		t.wire.Close()
		t.cancel() // if it had failed before: also what only delivers what it has
	}
}

func (s *server) stopAccepting() {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.cfg.Listener.Close()
}

func (s *server) all() []*tunnel {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*tunnel, 0, len(s.tunnels))
	for t := range s.tunnels {
		all = append(all, t)
	}
	return all
}

// accept returns nil when the server was told to stop.
func (s *server) accept(ctx context.Context) error {
	for wait := time.Duration(0); ; {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := s.cfg.Listener.Accept()
		if err == nil {
			wait = 0
			s.conns.Go(func() { s.conn(ctx, c) })
			continue
		}
		<-s.slots
		if s.isDraining() {
			return nil
		}
		if !transient(err) {
			return fmt.Errorf("accepting tunnels: %w", err)
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		s.cfg.Logger.Warn("accepting tunnels", "err", err, "retry_in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// transient is true for errors of one connection or of the moment (no free
// descriptor), which must not end the listener.
func transient(err error) bool {
	return !errors.Is(err, net.ErrClosed)
}

func (s *server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// conn serves one connection to its end.
func (s *server) conn(ctx context.Context, c net.Conn) {
	defer func() { <-s.slots }()
	defer c.Close()
	t, err := s.tunnel(ctx, c)
	if err != nil {
		s.refused(c, err)
		return
	}
	<-t.ended_
	t.work.Wait()
	t.serving.Wait()
	t.cancel()
	s.mu.Lock()
	delete(s.tunnels, t)
	s.mu.Unlock()
}

func (s *server) refused(c net.Conn, err error) {
	s.cfg.Logger.Debug("no tunnel", "remote", c.RemoteAddr(), "err", err)
	if s.cfg.Refused != nil {
		s.cfg.Refused(addrPort(c.RemoteAddr()), err)
	}
}

// tunnel runs the handshake and starts the tunnel.
func (s *server) tunnel(ctx context.Context, c net.Conn) (*tunnel, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	self, err := s.cfg.Self(ctx)
	if err != nil {
		return nil, fmt.Errorf("own identity: %w", err)
	}
	cfg, err := s.cfg.Credentials.Server(ctx, self)
	if err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", self, err)
	}
	w := newWire(c)
	tc, peer, err := secure(ctx, w, cfg, tls.Server)
	if err != nil {
		return nil, err
	}
	t := newTunnel(tc, w, s.cfg.Tuning, false)
	t.peer, t.handler = peer, s.cfg.Handler
	if err := s.add(t); err != nil {
		return nil, err
	}
	t.pings.after(&t.pings.first, s.cfg.FirstStreamTimeout, t.firstStream)
	t.start()
	return t, nil
}

// add makes the tunnel known to Drain and cut.
func (s *server) add(t *tunnel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return hbone.ErrDraining
	}
	s.tunnels[t] = true
	return nil
}

// firstStream ends a tunnel on which nothing was asked.
func (t *tunnel) firstStream() {
	if t.lastSeen() == 0 {
		t.fail(&connError{http2.ErrCodeNo, "no CONNECT came"})
	}
}

// Drain implements hbone.Server.
func (s *server) Drain(ctx context.Context) error {
	s.stopAccepting()
	var all sync.WaitGroup
	errs := make(chan error, 1)
	for _, t := range s.all() {
		t.goAway()
		all.Go(func() {
			if err := t.awaitEmpty(ctx); err != nil {
				select {
				case errs <- err:
				default:
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
)

// server accepts tunnels on one listener.
type server struct {
	cfg    ServerConfig
	slots  chan struct{} // one for each connection
	trying chan struct{} // one for each that is no tunnel yet
	door   *door.Door
	report *door.Report
	ctx    context.Context // ends with cut
	cancel context.CancelFunc
	over   chan struct{} // closed when Serve has ended

	mu       sync.Mutex
	tunnels  map[*tunnel]bool
	draining bool
	drainErr error           // the first of a tunnel that did not end by itself
	until    context.Context // how long a drain may take
	leaving  chan struct{}   // closed by Drain, which sets until before
	conns    sync.WaitGroup  // each connection until its handlers have returned
}

// NewServer makes a server; Serve runs it.
func NewServer(cfg ServerConfig) hbone.Server {
	cfg.Tuning.fill(200)
	def(&cfg.FirstStreamTimeout, 10*time.Second)
	def(&cfg.MaxTunnels, 10_000)
	def(&cfg.MaxHandshakes, 512)
	def(&cfg.PeerTunnels, 256)
	def(&cfg.PeerHandshakes, 64)
	def(&cfg.PeerRate, 500)
	s := &server{
		cfg: cfg, slots: make(chan struct{}, cfg.MaxTunnels), trying: make(chan struct{}, cfg.MaxHandshakes),
		door: door.New(cfg.PeerHandshakes, cfg.PeerTunnels, cfg.PeerRate), tunnels: map[*tunnel]bool{},
		report: door.NewReport(cfg.Tuning.Logger, cfg.Tuning.Abused),
		over:   make(chan struct{}), leaving: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve implements hbone.Server.
func (s *server) Serve(ctx context.Context) error {
	defer close(s.over)
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	err := s.accept(s.ctx)
	if err != nil { // the listener failed: nothing may outlive us
		s.cut()
	}
	s.conns.Wait()
	return err
}

// cut ends everything.
func (s *server) cut() {
	s.stopAccepting()
	s.cancel() // handshakes too
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
			s.arrive(ctx, c)
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

// errYields ends a handshake that took a place from another.
var errYields = errors.New("its handshake was going on while others waited for a place")

// arrive serves a connection, or turns it away.
func (s *server) arrive(ctx context.Context, c net.Conn) {
	from := addrPort(c.RemoteAddr())
	ctx, yield := context.WithCancelCause(ctx)
	v, abuse := s.door.Enter(from.Addr(), time.Now(), func() { yield(errYields) })
	if abuse != "" {
		yield(nil)
		<-s.slots
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0) // nothing of it is to stay in the kernel either
		}
		c.Close()
		s.report.Add(abuse, "connection turned away", keyRemote, from, keyReason, abuse)
		return
	}
	select {
	case s.trying <- struct{}{}:
	default:
		s.door.MakeRoom()
		s.trying <- struct{}{} // handshakes end, by themselves or with ctx
	}
	s.conns.Go(func() {
		defer yield(nil)
		s.conn(ctx, c, from, v)
	})
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

// conn makes a tunnel of one connection. What waits for its end does so on a
// stack of its own, as a handshake has made this one big.
func (s *server) conn(ctx context.Context, c net.Conn, from netip.AddrPort, v *door.Visit) {
	t, err := s.tunnel(ctx, c)
	v.Settled()
	<-s.trying
	if err != nil {
		if errors.Is(context.Cause(ctx), errYields) {
			err = errors.Join(errYields, err)
		}
		s.refused(from, err)
		s.leaves(c, v)
		return
	}
	s.conns.Go(func() {
		defer s.leaves(c, v)
		s.attend(t)
	})
}

// leaves gives back the place of a connection.
func (s *server) leaves(c net.Conn, v *door.Visit) {
	c.Close()
	v.Left()
	<-s.slots
}

// attend waits for the end of a tunnel.
func (s *server) attend(t *tunnel) {
	select {
	case <-t.ended_:
	case <-s.leaving:
		s.leave(t)
	}
	t.work.Wait()
	t.serving.Wait()
	t.cancel()
	s.mu.Lock()
	delete(s.tunnels, t)
	s.mu.Unlock()
}

func (s *server) refused(from netip.AddrPort, err error) {
	s.cfg.Logger.Debug("no tunnel", keyRemote, from, "err", err)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errYields) {
		s.report.Add(AbuseSlow, "connection cut off", keyRemote, from, keyReason, err)
	}
	if _, ok := s.report.Speak(door.Refusals); ok && s.cfg.Refused != nil {
		s.cfg.Refused(from, err)
	}
}

// handshakeTimeout is short while many wait for the places of those that dawdle.
func (s *server) handshakeTimeout() time.Duration {
	if s.door.Waiting() > s.cfg.MaxHandshakes/2 {
		return s.cfg.HandshakeTimeout / 5
	}
	return s.cfg.HandshakeTimeout
}

// tunnel runs the handshake and starts the tunnel.
func (s *server) tunnel(ctx context.Context, c net.Conn) (*tunnel, error) {
	ctx, cancel := context.WithTimeout(ctx, s.handshakeTimeout())
	defer cancel()
	self, err := s.cfg.Self(ctx)
	if err != nil {
		return nil, fmt.Errorf("own identity: %w", err)
	}
	var aliases []string
	if s.cfg.Aliases != nil {
		aliases = s.cfg.Aliases(ctx)
	}
	cfg, err := s.cfg.Credentials.Server(ctx, self, aliases...)
	if err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", self, err)
	}
	w := newWire(c)
	tc, peer, err := secure(ctx, w, cfg, tls.Server)
	if err != nil {
		return nil, err
	}
	t := newTunnel(tc, w, s.cfg.Tuning, false)
	t.peer, t.handler, t.report = peer, s.cfg.Handler, s.report
	t.offered = s.cfg.Datagrams
	if err := s.add(t); err != nil {
		return nil, err
	}
	t.pings.after(&t.pings.first, s.cfg.FirstStreamTimeout, t.firstStream)
	t.start()
	s.cfg.Credentials.Watch(self, peer, t.ended_, t.cut)
	return t, nil
}

// add makes the tunnel known to cut.
func (s *server) add(t *tunnel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return hbone.ErrDraining
	}
	s.tunnels[t] = true
	return nil
}

// firstStream ends a tunnel on which nothing was asked.
func (t *tunnel) firstStream() {
	if t.lastSeen() == 0 {
		t.fail(&connError{code: http2.ErrCodeNo, reason: "no CONNECT came"})
	}
}

// Drain implements hbone.Server. A connection in its handshake becomes a tunnel
// first, to which the end is told as to the others: a peer that saw its
// connection closed could not know that another would be taken.
func (s *server) Drain(ctx context.Context) error {
	s.stopAccepting()
	s.mu.Lock()
	if s.until == nil {
		s.until = ctx
		close(s.leaving)
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	<-s.over
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drainErr
}

// leave sees a tunnel to its end.
func (s *server) leave(t *tunnel) {
	t.goAway()
	err := t.awaitEmpty(s.until)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drainErr == nil {
		s.drainErr = err
	}
}

package h3

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
)

// server accepts tunnels on one socket.
type server struct {
	cfg    ServerConfig
	quic   *quic.Config
	tr     *quic.Transport
	door   *door.Door
	report *door.Report
	ctx    context.Context // ends with cut
	stop   context.CancelFunc
	open   context.Context // ends also when draining and no handshake goes on
	shut   context.CancelFunc
	over   chan struct{} // closed when Serve has ended

	mu       sync.Mutex
	tunnels  map[*tunnel]bool
	trying   int // handshakes
	draining bool
	drainErr error           // the first of a tunnel that did not end by itself
	until    context.Context // how long a drain may take
	leaving  chan struct{}   // closed by Drain, which sets until before
	conns    sync.WaitGroup  // each tunnel until its handlers have returned
}

// NewServer makes a server; Serve runs it.
func NewServer(cfg ServerConfig) hbone.Server {
	cfg.Tuning.fill(200)
	def(&cfg.FirstStreamTimeout, 10*time.Second)
	def(&cfg.MaxTunnels, 10_000)
	def(&cfg.MaxHandshakes, 512)
	def(&cfg.PeerTunnels, 64)
	def(&cfg.PeerHandshakes, 64)
	def(&cfg.PeerRate, 500)
	s := &server{
		cfg: cfg, tunnels: map[*tunnel]bool{},
		// Streams that have ended here may not have where they count.
		quic:   cfg.Tuning.quic(2 * cfg.MaxStreams),
		door:   door.New(cfg.PeerHandshakes, cfg.PeerTunnels, cfg.PeerRate),
		report: door.NewReport(cfg.Tuning.Logger, cfg.Tuning.Abused),
		over:   make(chan struct{}), leaving: make(chan struct{}),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.open, s.shut = context.WithCancel(s.ctx)
	s.quic.GetConfigForClient = func(*quic.ClientInfo) (*quic.Config, error) { return s.hasty(), nil }
	s.tr = &quic.Transport{Conn: cfg.Conn, ConnContext: s.arrive, VerifySourceAddress: s.doubts}
	return s
}

// Serve implements hbone.Server.
func (s *server) Serve(ctx context.Context) error {
	defer close(s.over)
	defer s.cfg.Conn.Close()
	l, err := s.tr.Listen(&tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: s.credentials}, s.quic)
	if err != nil {
		return fmt.Errorf("accepting tunnels: %w", err)
	}
	cancel := context.AfterFunc(ctx, s.cut)
	defer cancel()
	err = s.accept(l)
	if err != nil { // the socket failed: nothing may outlive us
		s.cut()
	}
	s.conns.Wait()
	s.tr.Close()
	return err
}

// cut ends everything.
func (s *server) cut() {
	s.refuse()
	s.stop()
	for _, t := range s.all() {
		t.fail(hbone.ErrClosed)
		t.cancel() // if it had failed before: also what only delivers what it has
	}
}

// refuse lets no new connection begin.
func (s *server) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.settledLocked()
}

func (s *server) settledLocked() {
	if s.draining && s.trying == 0 {
		s.shut()
	}
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

// accept returns nil when the server was told to stop. Those in their handshake
// are waited for: they become tunnels first, to which the end is told as to the
// others.
func (s *server) accept(l *quic.Listener) error {
	for {
		c, err := l.Accept(s.open)
		switch {
		case err == nil:
			s.conns.Go(func() { s.conn(c) })
		case s.open.Err() != nil:
			return nil
		default:
			return fmt.Errorf("accepting tunnels: %w", err)
		}
	}
}

// credentials are asked for in each handshake.
func (s *server) credentials(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	ctx, cancel := context.WithTimeout(hello.Context(), s.cfg.HandshakeTimeout)
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
	visitOf(ctx).is(self)
	return secured(cfg), nil
}

// conn serves a connection whose handshake is over.
func (s *server) conn(c *quic.Conn) {
	v := visitOf(c.Context())
	peer, err := peerOf(c)
	if err != nil {
		s.leaves(v, err)
		c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		return
	}
	if !s.stays(v) {
		return
	}
	t := newTunnel(c, peer, s.cfg.Tuning, false)
	t.handler, t.report, t.offered = s.cfg.Handler, s.report, s.cfg.Datagrams
	s.mu.Lock()
	cut := s.ctx.Err() != nil
	s.tunnels[t] = true
	s.mu.Unlock()
	t.mu.Lock()
	t.first = time.AfterFunc(s.cfg.FirstStreamTimeout, t.firstStream)
	t.mu.Unlock()
	t.start()
	s.cfg.Credentials.Watch(v.who(), peer, t.ended_, t.cut)
	if cut {
		t.cut(hbone.ErrClosed)
	}
	s.attend(t)
	v.door.Left()
}

// firstStream ends a tunnel on which nothing was asked.
func (t *tunnel) firstStream() {
	t.mu.Lock()
	idle := t.begun == 0
	t.mu.Unlock()
	if idle {
		t.fail(fault(http3.ErrCodeNoError, "no CONNECT came"))
	}
}

// attend waits for the end of a tunnel.
func (s *server) attend(t *tunnel) {
	select {
	case <-t.ended_:
	case <-s.leaving:
		t.drain()
		err := t.awaitEmpty(s.until)
		s.mu.Lock()
		if s.drainErr == nil {
			s.drainErr = err
		}
		s.mu.Unlock()
	}
	t.hangUp()
	t.work.Wait()
	t.serving.Wait()
	t.cancel()
	s.mu.Lock()
	delete(s.tunnels, t)
	s.mu.Unlock()
}

// Drain implements hbone.Server.
func (s *server) Drain(ctx context.Context) error {
	s.mu.Lock()
	if s.until == nil {
		s.until = ctx
		close(s.leaving)
	}
	s.mu.Unlock()
	s.refuse()
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	<-s.over
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drainErr
}

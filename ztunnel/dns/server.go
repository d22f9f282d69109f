package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/names"
)

// Port is where the proxy listens inside a pod.
const Port = 15053

// Config is what a Server works with; every field without a zero value is
// required.
type Config struct {
	Store *view.Store
	// Local waits for the record of the pod served.
	Local func(ctx context.Context) (*mesh.Workload, error)
	// Known is the same without waiting; nil if it is not known.
	Known func() *mesh.Workload
	// Domain is the cluster's. Empty is cluster.local.
	Domain string
	// Servers are the resolvers that are asked further; Dial reaches them from
	// inside the pod.
	Servers func() ([]netip.AddrPort, error)
	Dial    Dial
	// NS is the pod's namespace; nil is the process's own.
	NS *linux.NetNS
	// Mark and ReusePort are linux.ListenOptions'.
	Mark      int
	ReusePort bool
	// Metrics count. Nil: nobody does.
	Metrics *Metrics
	// Logger is required.
	Logger *slog.Logger
	// LocalTimeout bounds the wait for the pod's record. Zero is 5 s.
	LocalTimeout time.Duration
	// Retry is how often listening is tried again. Zero is 5 s.
	Retry time.Duration
	// Datagrams and Streams are how many queries over UDP, and connections over
	// TCP, may wait for resolvers at once; further ones fail. Zero is 128 of
	// each.
	Datagrams, Streams int
	// Idle is how long a connection may be silent. Zero is 5 s.
	Idle time.Duration
}

// Server answers one pod.
type Server struct {
	Config
	forward   forwarder
	datagrams chan struct{} // a place for each query that is on its way
	streams   chan struct{} // and for each connection

	cut     context.Context // ends everything
	cancel  context.CancelFunc
	leaving chan struct{} // closed when no more is taken
	serving sync.WaitGroup

	mu      sync.Mutex
	trouble string
	left    bool
	packets []*net.UDPConn
	accepts []*net.TCPListener
}

// Start listens if it can, and goes on trying if it cannot.
func Start(c Config) *Server {
	c.Domain = cmp.Or(c.Domain, "cluster.local")
	c.LocalTimeout = cmp.Or(c.LocalTimeout, 5*time.Second)
	c.Retry = cmp.Or(c.Retry, 5*time.Second)
	c.Datagrams, c.Streams = cmp.Or(c.Datagrams, 128), cmp.Or(c.Streams, 128)
	c.Idle = cmp.Or(c.Idle, 5*time.Second)
	s := &Server{
		Config: c, forward: forwarder{c.Servers, c.Dial}, leaving: make(chan struct{}),
		datagrams: make(chan struct{}, c.Datagrams), streams: make(chan struct{}, c.Streams),
	}
	s.cut, s.cancel = context.WithCancel(context.Background())
	if !s.listen() {
		s.serving.Go(s.retry)
	}
	return s
}

// Trouble says why the pod's names are not answered here; empty if they are.
func (s *Server) Trouble() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// retry is for a port that something of the pod's holds.
func (s *Server) retry() {
	tick := time.NewTicker(s.Retry)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if s.listen() {
				s.Logger.Info("dns proxy listens at last")
				return
			}
		case <-s.leaving:
			return
		}
	}
}

// listen opens every socket or none, and says whether it is done with trying.
func (s *Server) listen() bool {
	packets, accepts, err := s.open()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left && err == nil {
		err = errors.New("the pod is let go of")
	}
	if err != nil {
		closeAll(packets)
		closeAll(accepts)
		if s.trouble != err.Error() {
			s.Logger.Warn("dns proxy cannot listen; names are asked of the cluster's dns once the agent sees it", "error", err)
		}
		s.trouble = err.Error()
		return s.left
	}
	s.trouble, s.packets, s.accepts = "", packets, accepts
	for _, c := range packets {
		s.serving.Go(func() { s.receive(c) })
	}
	for _, l := range accepts {
		s.serving.Go(func() { s.accept(l) })
	}
	return true
}

// open makes the sockets of each family that the pod's loopback has.
func (s *Server) open() (packets []*net.UDPConn, accepts []*net.TCPListener, err error) {
	at := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	probe := func() error {
		if linux.HasIPv6() {
			at = append(at, netip.IPv6Loopback())
		}
		return nil
	}
	if s.NS != nil {
		err = s.NS.Do(probe)
	} else {
		err = probe()
	}
	o := linux.ListenOptions{Mark: s.Mark, ReusePort: s.ReusePort}
	for _, a := range at {
		if err != nil {
			break
		}
		var c *net.UDPConn
		if c, err = linux.ListenUDP(context.Background(), s.NS, netip.AddrPortFrom(a, Port), o); err != nil {
			break
		}
		packets = append(packets, c)
		var l *net.TCPListener
		if l, err = linux.ListenTCP(context.Background(), s.NS, netip.AddrPortFrom(a, Port), o); err != nil {
			break
		}
		accepts = append(accepts, l)
	}
	if err != nil {
		err = fmt.Errorf("dns proxy port %d: %w", Port, err)
	}
	return packets, accepts, err
}

// resolve is the mesh's answer to a query, if it has one. The pod's record is
// waited for: without it nobody knows what its names mean.
func (s *Server) resolve(q *query, local *mesh.Workload, limit int) ([]byte, bool) {
	v6, ok := q.addresses()
	if !ok {
		return nil, false
	}
	a, known := names.Resolve(s.Store.View(), names.Question{Client: local, Domain: s.Domain, Name: q.name(), V6: v6})
	if !known {
		return nil, false
	}
	b, err := q.answer(a, limit)
	if err != nil {
		s.Logger.Warn("writing a dns answer", "name", q.name(), "error", err)
		return q.fail(), true
	}
	return b, true
}

// local is the pod's record, waited for within bounds.
func (s *Server) local(ctx context.Context) (*mesh.Workload, error) {
	if w := s.Known(); w != nil {
		return w, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.LocalTimeout)
	defer cancel()
	return s.Local(ctx)
}

// serve answers a query, from the mesh or further on.
func (s *Server) serve(ctx context.Context, network string, q *query, limit int) []byte {
	local, err := s.local(ctx)
	if err != nil {
		s.note(q, network, nil, "", err)
		return q.fail()
	}
	if b, ok := s.resolve(q, local, limit); ok {
		s.note(q, network, local, "the mesh", nil)
		return b
	}
	began := time.Now()
	b, err := s.forward.ask(ctx, network, q)
	s.Metrics.forwarded(q, network, local, time.Since(began), err)
	s.note(q, network, local, "a resolver", err)
	if err != nil || b == nil {
		return q.fail()
	}
	return b
}

// note counts a query and logs it.
func (s *Server) note(q *query, network string, local *mesh.Workload, by string, err error) {
	s.Metrics.asked(q, network, local)
	if err != nil {
		s.Logger.Debug("dns query failed", "protocol", network, "type", q.kind(), "name", q.name(), "error", err)
		return
	}
	s.Logger.Debug("dns query answered", "protocol", network, "type", q.kind(), "name", q.name(), "by", by)
}

// StopAccepting takes no more; what was taken is still answered.
func (s *Server) StopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return
	}
	s.left = true
	close(s.leaving)
	closeAll(s.accepts)
	for _, c := range s.packets {
		// Datagrams that are queued are read to the last; new ones go to the
		// proxy that takes over, if there is one.
		if err := linux.TurnAway(c); err != nil {
			s.Logger.Warn("no longer taking datagrams", "error", err)
		}
		c.SetReadDeadline(time.Now().Add(lastRead))
	}
}

// lastRead is how long the datagrams that are queued are read. They are there.
const lastRead = 10 * time.Millisecond

// Drain stops accepting, waits until what was taken is answered, and cuts what
// is left when ctx is done.
func (s *Server) Drain(ctx context.Context) {
	s.StopAccepting()
	stop := context.AfterFunc(ctx, s.cancel)
	defer stop()
	s.serving.Wait()
	s.cancel()
}

func closeAll[C interface{ Close() error }](all []C) {
	for _, c := range all {
		c.Close()
	}
}

package echo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config says what a server serves. Ports that are zero are not served.
type Config struct {
	// HTTP are ports of HTTP/1.1 and HTTP/2 without TLS.
	HTTP []int
	// TCP are ports that send back what they receive and half-close when the client does.
	TCP []int
	// UDP is a port that sends datagrams back.
	UDP int
	// GRPC is a port of the gRPC health service.
	GRPC int
	// First is a port where the server speaks first: a banner, then as TCP.
	First int
	// Bulk is a port of transfers with checksums, both ways; see ports.go.
	Bulk int
	// Upstreams are called by requests for /call, and their answers are part of
	// the answer: http://HOST:PORT/PATH or tcp://HOST:PORT.
	Upstreams []string
	// Version appears in every answer.
	Version string
	// Marker is sent in every call to an upstream, so that a capture can look for it.
	Marker string
	// Grace is how long open connections may go on after ctx ends. Zero means 3 s.
	Grace time.Duration
	// Log receives one line per connection. Nil means slog.Default.
	Log *slog.Logger
}

// server is what the handlers share.
type server struct {
	cfg  Config
	log  *slog.Logger
	name string
	acks acks
	// faulty is the status that requests are answered with, 0 for none.
	faulty atomic.Int32
}

// Serve serves until ctx ends. ready is called once every port listens, with
// the address of each port that was asked for.
func Serve(ctx context.Context, cfg Config, ready func(map[int]net.Addr)) error {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Grace == 0 {
		cfg.Grace = 3 * time.Second
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	s := &server{cfg: cfg, log: cfg.Log.With("component", "echo"), name: name}
	g, ctx := errgroup.WithContext(ctx)
	bound, err := s.listen(ctx, g)
	if err != nil {
		return err
	}
	s.log.Info("serving", "http", cfg.HTTP, "tcp", cfg.TCP, "udp", cfg.UDP, "grpc", cfg.GRPC, "first", cfg.First, "bulk", cfg.Bulk)
	if ready != nil {
		ready(bound)
	}
	return g.Wait()
}

// service is a port and what serves its listener until ctx ends.
type service struct {
	port  int
	serve func(context.Context, net.Listener) error
}

// listen binds every port before the first is served, and starts serving in g.
func (s *server) listen(ctx context.Context, g *errgroup.Group) (map[int]net.Addr, error) {
	var services []service
	for _, p := range s.cfg.HTTP {
		services = append(services, service{p, s.serveHTTP})
	}
	for _, p := range s.cfg.TCP {
		services = append(services, service{p, s.perConn(s.echoConn)})
	}
	services = append(services, service{s.cfg.GRPC, s.serveGRPC},
		service{s.cfg.First, s.perConn(s.firstConn)}, service{s.cfg.Bulk, s.perConn(s.bulkConn)})
	bound := map[int]net.Addr{}
	var listeners []net.Listener
	for _, svc := range services {
		if svc.port == 0 {
			listeners = append(listeners, nil)
			continue
		}
		l, err := net.Listen("tcp", portAddr(svc.port))
		if err != nil {
			closeAll(listeners)
			return nil, fmt.Errorf("listen on port %d: %w", svc.port, err)
		}
		listeners = append(listeners, l)
		bound[svc.port] = l.Addr()
	}
	if s.cfg.UDP != 0 {
		pc, err := net.ListenPacket("udp", portAddr(s.cfg.UDP))
		if err != nil {
			closeAll(listeners)
			return nil, fmt.Errorf("listen on UDP port %d: %w", s.cfg.UDP, err)
		}
		bound[s.cfg.UDP] = pc.LocalAddr()
		g.Go(func() error { return serveUDP(ctx, pc) })
	}
	for i, svc := range services {
		if l := listeners[i]; l != nil {
			g.Go(func() error { return svc.serve(ctx, l) })
		}
	}
	return bound, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		if l != nil {
			l.Close()
		}
	}
}

// portAddr is the address to listen on. A negative port asks for any free one,
// for tests.
func portAddr(port int) string { return fmt.Sprintf(":%d", max(port, 0)) }

// perConn serves each connection of a listener with handle. When ctx ends it
// stops accepting, waits out the grace, closes what is left and waits.
func (s *server) perConn(handle func(net.Conn) error) func(context.Context, net.Listener) error {
	return func(ctx context.Context, l net.Listener) error {
		var open connSet
		stop := context.AfterFunc(ctx, func() { l.Close() })
		defer stop()
		for {
			conn, err := l.Accept()
			if err != nil {
				open.drain(s.cfg.Grace)
				if errors.Is(err, net.ErrClosed) {
					return nil
				}
				return err
			}
			open.run(conn, func() {
				if err := handle(conn); err != nil {
					s.log.Info("connection ended", "remote", conn.RemoteAddr().String(), "port", l.Addr().String(), "error", err)
				}
			})
		}
	}
}

// connSet is the open connections of one listener.
type connSet struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

func (c *connSet) run(conn net.Conn, handle func()) {
	c.mu.Lock()
	if c.conns == nil {
		c.conns = map[net.Conn]struct{}{}
	}
	c.conns[conn] = struct{}{}
	c.mu.Unlock()
	c.wg.Go(func() {
		defer func() {
			conn.Close()
			c.mu.Lock()
			delete(c.conns, conn)
			c.mu.Unlock()
		}()
		handle()
	})
}

// drain lets connections end by themselves for the grace, then closes them.
func (c *connSet) drain(grace time.Duration) {
	t := time.AfterFunc(grace, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for conn := range c.conns {
			conn.Close()
		}
	})
	defer t.Stop()
	c.wg.Wait()
}

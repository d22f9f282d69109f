package advanced

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config says what a server serves. Negative ports stand for any free one, for
// tests.
type Config struct {
	// HTTP are ports of HTTP/1.1 and HTTP/2. Empty means 8080.
	HTTP []int
	// TLS are those of HTTP that are served with TLS, by Certificate and Key.
	TLS []int
	// Certificate and Key are PEM files. Needed with TLS.
	Certificate, Key string
	// GRPC are ports of the echo service. Empty means 7070.
	GRPC []int
	// TCP are ports that describe themselves and then echo. Empty means 9090.
	TCP []int
	// Version is told in every answer.
	Version string
	// Grace is how long open connections may go on after ctx ends. Zero means 1 s.
	Grace time.Duration
}

func (c *Config) defaults() {
	for ports, port := range map[*[]int]int{&c.HTTP: 8080, &c.GRPC: 7070, &c.TCP: 9090} {
		if len(*ports) == 0 {
			*ports = []int{port}
		}
	}
	if c.Grace == 0 {
		c.Grace = time.Second
	}
}

// server is what the handlers share.
type server struct {
	cfg      Config
	hostname string
	tls      *tls.Config
}

// Serve serves until ctx ends. ready, which may be nil, is called once every
// port listens, with the address of each port that was asked for.
func Serve(ctx context.Context, cfg Config, ready func(map[int]net.Addr)) error {
	cfg.defaults()
	s := &server{cfg: cfg}
	var err error
	if s.hostname, err = os.Hostname(); err != nil {
		return err
	}
	if len(cfg.TLS) > 0 {
		pair, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.Key)
		if err != nil {
			return fmt.Errorf("reading the certificate: %w", err)
		}
		s.tls = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	}
	listeners, err := listen(slices.Concat(cfg.HTTP, cfg.GRPC, cfg.TCP))
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	s.start(ctx, g, listeners)
	if ready != nil {
		bound := map[int]net.Addr{}
		for port, l := range listeners {
			bound[port] = l.Addr()
		}
		ready(bound)
	}
	return g.Wait()
}

// listen binds every port before the first is served.
func listen(ports []int) (map[int]net.Listener, error) {
	all := map[int]net.Listener{}
	for _, port := range ports {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(max(port, 0)))
		if err != nil {
			for _, open := range all {
				open.Close()
			}
			return nil, fmt.Errorf("listen on port %d: %w", port, err)
		}
		all[port] = l
	}
	return all, nil
}

// start serves every listener in g.
func (s *server) start(ctx context.Context, g *errgroup.Group, listeners map[int]net.Listener) {
	for _, port := range s.cfg.HTTP {
		l := listeners[port]
		if slices.Contains(s.cfg.TLS, port) {
			l = tls.NewListener(l, s.tls)
		}
		g.Go(func() error { return s.serveHTTP(ctx, l) })
	}
	for _, port := range s.cfg.GRPC {
		g.Go(func() error { return s.serveGRPC(ctx, listeners[port]) })
	}
	for _, port := range s.cfg.TCP {
		g.Go(func() error { return s.serveTCP(ctx, listeners[port]) })
	}
}

func (s *server) serveHTTP(ctx context.Context, l net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: http.HandlerFunc(s.answer), Protocols: protocols, ReadHeaderTimeout: 30 * time.Second}
	return until(ctx, func() error { return srv.Serve(l) }, func() {
		grace, cancel := context.WithTimeout(context.Background(), s.cfg.Grace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
}

// until serves until ctx ends and stop has returned.
func until(ctx context.Context, serve func() error, stop func()) error {
	done := make(chan struct{})
	unregister := context.AfterFunc(ctx, func() {
		defer close(done)
		stop()
	})
	err := serve()
	if !unregister() {
		<-done
	}
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// answer describes the request, one field a line, here and in the pod's log.
// For our own cases it understands delay=DURATION and status=CODE in the query.
func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	slog.Info("request", "component", "advanced", "method", r.Method, "url", r.RequestURI, "host", r.Host)
	q := r.URL.Query()
	if d, err := time.ParseDuration(q.Get("delay")); err == nil {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, "read body: "+err.Error(), http.StatusBadRequest)
		return
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	var d description
	d.add("ServiceVersion", s.cfg.Version)
	d.add("ServicePort", portOf(local))
	d.add("Host", r.Host)
	d.add("URL", r.RequestURI)
	d.add("Method", r.Method)
	d.add("Proto", r.Proto)
	d.add("IP", hostOf(r.RemoteAddr))
	d.headers("RequestHeader", r.Header)
	d.add("Hostname", s.hostname)
	w.Header().Set("Content-Type", "text/plain")
	if code, err := strconv.Atoi(q.Get("status")); err == nil && code >= 200 && code < 600 {
		w.WriteHeader(code)
	}
	_, _ = io.WriteString(w, d.String())
}

// serveTCP describes each connection and then sends back what comes in.
func (s *server) serveTCP(ctx context.Context, l net.Listener) error {
	var open sync.WaitGroup
	defer open.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		open.Go(func() {
			cut := context.AfterFunc(ctx, func() { conn.Close() })
			defer cut()
			defer conn.Close()
			// The client sees a broken connection; there is nobody else to tell.
			_ = s.echo(conn)
		})
	}
}

// echo speaks only after the client has: what goes between them may have to see
// first who speaks which protocol.
func (s *server) echo(conn net.Conn) error {
	first := make([]byte, 4<<10)
	n, err := conn.Read(first)
	if err != nil {
		return err
	}
	var d description
	d.add("StatusCode", "200")
	d.add("ServiceVersion", s.cfg.Version)
	d.add("ServicePort", portOf(conn.LocalAddr()))
	d.add("IP", hostOf(conn.RemoteAddr().String()))
	d.add("Hostname", s.hostname)
	if _, err := io.WriteString(conn, d.String()+string(first[:n])); err != nil {
		return err
	}
	if _, err := io.Copy(conn, conn); err != nil {
		return err
	}
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

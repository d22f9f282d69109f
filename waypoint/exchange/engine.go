package exchange

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// EngineConfig bounds what clients may do.
type EngineConfig struct {
	// Handler serves each request. Required.
	Handler http.Handler
	// HeaderTimeout bounds the arrival of a header. Zero is 15 s.
	HeaderTimeout time.Duration
	// IdleTimeout ends a connection without requests. Zero is 1 h.
	IdleTimeout time.Duration
	// MaxHeader bounds a header, its request line included. Zero is 64 KiB.
	MaxHeader int
	// MaxStreams is how many requests a connection in HTTP/2 carries at once.
	// Zero is 250.
	MaxStreams int
	// Logger receives what has no record. Nil discards it.
	Logger *slog.Logger
}

// Engine speaks HTTP/1.1 and HTTP/2 with clients on connections that it is
// handed. It is all of net/http's server that others see.
type Engine struct {
	server *http.Server
	queue  *queue
	served chan struct{} // closed when the server has returned
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	draining bool
	conns    map[*conn]bool
	serving  sync.WaitGroup // each connection
}

// NewEngine starts an engine; Drain and Close end it.
func NewEngine(c EngineConfig) *Engine {
	def(&c.HeaderTimeout, 15*time.Second)
	def(&c.IdleTimeout, time.Hour)
	def(&c.MaxHeader, 64<<10)
	def(&c.MaxStreams, 250)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		queue:  &queue{conns: make(chan net.Conn), closed: make(chan struct{})},
		served: make(chan struct{}), conns: map[*conn]bool{},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.server = &http.Server{
		Handler: closing{c.Handler}, ReadHeaderTimeout: c.HeaderTimeout, IdleTimeout: c.IdleTimeout,
		MaxHeaderBytes: c.MaxHeader, DisableGeneralOptionsHandler: true,
		BaseContext: func(net.Listener) context.Context { return e.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(withArrival(ctx, c.(*conn).arrival), connKey{}, c)
		},
		ErrorLog:  slog.NewLogLogger(c.Logger.With("component", "http").Handler(), slog.LevelDebug),
		Protocols: new(http.Protocols),
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: c.MaxStreams},
	}
	e.server.Protocols.SetHTTP1(true)
	e.server.Protocols.SetUnencryptedHTTP2(true)
	go func() { // ends with Close, which waits for it
		defer close(e.served)
		e.server.Serve(e.queue)
	}()
	return e
}

// Serve serves one connection until it has ended, in whichever way.
func (e *Engine) Serve(s net.Conn, a *Arrival) {
	c := &conn{Conn: s, arrival: a, ended: make(chan struct{}), framing: framing{maxLine: e.server.MaxHeaderBytes}}
	if !e.admit(c) {
		c.Close()
		return
	}
	defer e.leave(c)
	select {
	case e.queue.conns <- c:
		<-c.ended
	case <-e.queue.closed:
		c.Close()
	}
}

func (e *Engine) admit(c *conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining {
		return false
	}
	e.conns[c] = true
	e.serving.Add(1)
	return true
}

func (e *Engine) leave(c *conn) {
	e.mu.Lock()
	delete(e.conns, c)
	e.mu.Unlock()
	e.serving.Done()
}

// Drain takes no more connections, tells clients to go, lets requests end, and
// cuts the rest when ctx is done.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	e.draining = true
	e.mu.Unlock()
	err := e.server.Shutdown(ctx) // does not know what changed its protocol
	ended := make(chan struct{})
	go func() { e.serving.Wait(); close(ended) }() // ends: Close ends all connections
	select {
	case <-ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.Close()
	<-ended
	return err
}

// Close cuts everything and waits for it. It may be called twice.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.draining = true
	var conns []*conn
	for c := range e.conns {
		conns = append(conns, c)
	}
	e.mu.Unlock()
	e.cancel()
	err := e.server.Close()
	e.queue.Close()
	for _, c := range conns {
		c.cut()
	}
	e.serving.Wait()
	<-e.served
	return err
}

// conn is a client's connection that tells when it has been closed, and whose
// requests are framed strictly.
type conn struct {
	net.Conn
	arrival *Arrival
	once    sync.Once
	ended   chan struct{}

	// What follows belongs to whoever reads.
	framing framing
	raw     atomic.Bool // what is read is not HTTP/1.1 any more
	bad     atomic.Bool // a violation was found
	left    []byte      // to be read before anything else
	broken  error
}

type connKey struct{}

// isMalformed says whether a connection's framing is broken, which net/http
// takes for the client's end.
func isMalformed(ctx context.Context) bool {
	c, ok := ctx.Value(connKey{}).(*conn)
	return ok && c.bad.Load()
}

// closing ends connections on which a change of protocol was asked for and not
// made: what followed in the same breath was not looked at.
type closing struct{ http.Handler }

func (c closing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if conn, ok := r.Context().Value(connKey{}).(*conn); ok && r.ProtoMajor == 1 && conn.raw.Load() {
		w.Header().Set("Connection", "close")
	}
	c.Handler.ServeHTTP(w, r)
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.left) > 0 {
		n := copy(p, c.left)
		c.left = c.left[n:]
		return n, nil
	}
	if c.broken != nil {
		return 0, c.broken
	}
	n, err := c.Conn.Read(p)
	good, bad := c.framing.feed(p[:n])
	c.raw.Store(c.framing.state == inRaw)
	if bad == nil {
		return n, err
	}
	c.broken = bad
	c.bad.Store(true)
	if e, ok := errors.AsType[*frameError](bad); ok && e.inHead {
		c.left, c.broken = []byte(poison), io.EOF
	}
	if good > 0 {
		return good, nil
	}
	return c.Read(p)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.ended) })
	return err
}

// CloseWrite lets net/http, and what took a connection over, half-close.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// cut ends the connection so that the client sees a reset.
func (c *conn) cut() {
	if s, ok := c.Conn.(hbone.Stream); ok {
		s.Reset()
	}
	c.Close()
}

// queue is a listener of connections that were accepted elsewhere.
type queue struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

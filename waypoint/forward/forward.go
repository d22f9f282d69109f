package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/hbone/pool"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
)

// Config is what a Forwarder works with.
type Config struct {
	// Credentials are required.
	Credentials hbone.Credentials
	// Self is the waypoint's own record, nil while it has not come: nothing is
	// forwarded until then. Required.
	Self func() *mesh.Workload
	// Connect opens TCP connections, to backends and under tunnels. Nil: from
	// this namespace.
	Connect hbone.Connect
	// ConnectTimeout bounds the making of one connection, where a service's
	// settings do not. Zero is 10 s.
	ConnectTimeout time.Duration
	// IdleTimeout is how long an unused HTTP connection is kept, where a
	// service's settings do not say. Zero is 1 minute.
	IdleTimeout time.Duration
	// MaxIdle is how many unused HTTP/1.1 connections are kept to one backend.
	// Zero is 100.
	MaxIdle int
	// TunnelPort is where workloads accept HBONE. Zero is hbone.Port.
	TunnelPort uint16
	Tuning     h2.Tuning
	// Logger receives what happens to tunnels. Nil: nothing is logged.
	Logger *slog.Logger
}

// Forwarder makes connections. It is used by many goroutines.
type Forwarder struct {
	config  Config
	tunnels *pool.Pool

	mu      sync.Mutex
	clients map[key]*client
	closed  bool
}

// New makes a Forwarder; Close ends it.
func New(c Config) *Forwarder {
	def(&c.ConnectTimeout, 10*time.Second)
	def(&c.IdleTimeout, time.Minute)
	def(&c.MaxIdle, 100)
	def(&c.TunnelPort, hbone.Port)
	if c.Connect == nil {
		c.Connect = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to.String())
		}
	}
	return &Forwarder{
		config:  c,
		clients: map[key]*client{},
		tunnels: pool.New(pool.Config{
			Dialer: h2.NewDialer(h2.Config{Credentials: c.Credentials, Connect: c.Connect, Tuning: c.Tuning}),
			Logger: c.Logger,
		}),
	}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Endpoint is one backend.
type Endpoint struct {
	Workload *mesh.Workload
	// Address is the workload's own, with the application's port; the port alone
	// of a workload that is known by its hostname only.
	Address netip.AddrPort
	// Service is whose endpoint it is, nil where the workload itself was asked
	// for. The identities it names are accepted beside the workload's own.
	Service *mesh.Service
	// Settings bound the connections.
	Settings mesh.Connections
	// TLS is started on connections, if it is on.
	TLS mesh.OriginateTLS
}

// accept is whom the backend may be: exactly these.
func (e *Endpoint) accept() []spiffe.ID {
	accept := e.Workload.Identities()
	if e.Service != nil {
		accept = append(accept, e.Service.SubjectAltNames...)
	}
	return accept
}

// ConnectError is a connection that was not made: nothing was asked of the
// backend, and another one may be.
type ConnectError struct {
	To  netip.AddrPort
	Err error
}

func (e *ConnectError) Error() string { return fmt.Sprintf("connecting to %s: %v", e.To, e.Err) }

func (e *ConnectError) Unwrap() error { return e.Err }

var errNoSelf = errors.New("the waypoint's own record has not come")

// Handshakes is how many tunnels were made since the beginning.
func (f *Forwarder) Handshakes() uint64 { return f.tunnels.Handshakes() }

// Held is how many tunnels there are, those that are made or end included.
func (f *Forwarder) Held() int { return f.tunnels.Held() }

// Tunnels lists the tunnels that are offered.
func (f *Forwarder) Tunnels() []pool.Status { return f.tunnels.List() }

// Follow lets go of connections to workloads that are no more or have changed
// their address or identity, and of tunnels made with a certificate that has
// been renewed. What they carry may end.
func (f *Forwarder) Follow(v *view.View, renewed map[spiffe.ID]bool) {
	f.tunnels.Forget(func(t hbone.Target) bool {
		return renewed[t.Self] || t.Workload != "" && !behind(v.Workload(t.Workload), t.Address.Addr())
	})
	f.forget(func(c *client) bool {
		w := v.Workload(c.to.Workload.UID)
		return !c.to.behind(w) || !slices.Equal(w.Identities(), c.to.Workload.Identities()) || w.Tunnel != c.to.Workload.Tunnel
	})
}

// behind says whether w is still where the endpoint is.
func (e *Endpoint) behind(w *mesh.Workload) bool {
	if !e.Address.Addr().IsValid() {
		return w != nil && w.Hostname == e.Workload.Hostname
	}
	return behind(w, e.Address.Addr())
}

// behind says whether w has an address.
func behind(w *mesh.Workload, a netip.Addr) bool {
	if w == nil {
		return false
	}
	for _, own := range w.Addresses {
		if own.Unmap() == a.Unmap() {
			return true
		}
	}
	return false
}

// Close cuts everything and waits for it.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.forget(func(*client) bool { return true })
	return f.tunnels.Close()
}

// forget closes the idle connections of clients that match.
func (f *Forwarder) forget(match func(*client) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, c := range f.clients {
		if match(c) {
			delete(f.clients, k)
			c.retire()
		}
	}
}

// RoundTrip sends a request to a backend and gives its answer, whose body the
// caller closes. With two, it speaks HTTP/2. The request's URL needs no host.
// Where no connection was made the error is a *ConnectError.
func (f *Forwarder) RoundTrip(r *http.Request, to *Endpoint, two bool) (*http.Response, error) {
	c, err := f.client(to)
	if err != nil {
		return nil, err
	}
	r.URL.Scheme, r.URL.Host = "http", "backend" // each client has one
	if two {
		return c.two.RoundTrip(r)
	}
	return c.one.RoundTrip(r)
}

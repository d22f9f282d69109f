// Package backendtest makes a small mesh on the loopback interface for the tests
// of waypoint's packages: pods with addresses of their own, whose programs are
// behind a real HBONE server, or plainly there. It has no other users.
package backendtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// AppPort is where programs listen.
const AppPort = 8080

// Mesh is a namespace "shop" of pods.
type Mesh struct {
	t     testing.TB
	CA    *certstest.CA
	Certs *certs.Manager

	mu   sync.Mutex
	net  [2]byte
	last byte
}

// New makes a mesh without pods.
func New(t testing.TB) *Mesh {
	ca := certstest.New(t)
	return &Mesh{t: t, CA: ca, Certs: ca.Credentials(t), net: [2]byte{byte(1 + rand.IntN(254)), byte(rand.IntN(256))}}
}

// Pod is one pod and what became of it.
type Pod struct {
	*mesh.Workload
	// Address is its program's.
	Address netip.AddrPort
	// Tunnelled counts the connections that came by HBONE.
	Tunnelled atomic.Int64
	// Requests are the CONNECTs.
	mu       sync.Mutex
	requests []hbone.Request
	stop     func()
}

// Workload makes a pod's record, with an address on which nothing listens.
func (m *Mesh) Workload(name string) *mesh.Workload {
	m.mu.Lock()
	m.last++
	a := netip.AddrFrom4([4]byte{127, m.net[0], m.net[1], m.last})
	m.mu.Unlock()
	return &mesh.Workload{
		UID: "k//Pod/shop/" + name, Name: name, Namespace: "shop", TrustDomain: spiffe.DefaultTrustDomain, ServiceAccount: name,
		Addresses: []netip.Addr{a}, Tunnel: mesh.TunnelHBONE, ClusterID: "k", CanonicalName: name, OwnerName: name, Capacity: 1,
	}
}

// Pod starts a pod whose program is serve, which ends with its listener. As
// is the identity that its certificate has; the zero value is its own.
func (m *Mesh) Pod(name string, as spiffe.ID, serve func(net.Listener)) *Pod {
	m.t.Helper()
	w := m.Workload(name)
	if as.IsZero() {
		as = w.Identity()
	}
	p := m.start(w, serve)
	p.listenHBONE(m, as)
	return p
}

// Plain starts a pod outside of the mesh.
func (m *Mesh) Plain(name string, serve func(net.Listener)) *Pod {
	m.t.Helper()
	w := m.Workload(name)
	w.Tunnel = mesh.TunnelNone
	return m.start(w, serve)
}

func (m *Mesh) start(w *mesh.Workload, serve func(net.Listener)) *Pod {
	m.t.Helper()
	p := &Pod{Workload: w, Address: netip.AddrPortFrom(w.Addresses[0], AppPort)}
	l, err := net.Listen("tcp", p.Address.String())
	if err != nil {
		m.t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { serve(l) })
	m.t.Cleanup(func() { l.Close(); served.Wait() })
	return p
}

func (p *Pod) listenHBONE(m *Mesh, as spiffe.ID) {
	m.t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(p.Addresses[0], hbone.Port).String())
	if err != nil {
		m.t.Fatal(err)
	}
	server := h2.NewServer(h2.ServerConfig{
		Listener: l, Credentials: m.Certs, Handler: p.connect,
		Self: func(context.Context) (spiffe.ID, error) { return as, nil },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { server.Serve(ctx) })
	p.stop = sync.OnceFunc(func() { cancel(); served.Wait() })
	m.t.Cleanup(p.stop)
}

// Kill ends the HBONE server, and cuts what it carries.
func (p *Pod) Kill() { p.stop() }

// connect is what a ztunnel does.
func (p *Pod) connect(in hbone.Incoming) {
	p.mu.Lock()
	p.requests = append(p.requests, in.Request())
	p.mu.Unlock()
	app, err := new(net.Dialer).DialContext(in.Context(), "tcp", in.Request().Authority)
	if err != nil {
		in.Reject(hbone.StatusUnavailable, err.Error())
		return
	}
	s, err := in.Accept(nil)
	if err != nil {
		app.Close()
		return
	}
	p.Tunnelled.Add(1)
	relay.Run(in.Context(), s, app.(*net.TCPConn), nil)
}

// Requests are the CONNECTs that came.
func (p *Pod) Requests() []hbone.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]hbone.Request(nil), p.requests...)
}

// HTTP is a program that speaks HTTP/1.1 and HTTP/2 in plaintext.
func HTTP(h http.HandlerFunc) func(net.Listener) {
	return func(l net.Listener) {
		s := &http.Server{Handler: h, Protocols: new(http.Protocols), DisableGeneralOptionsHandler: true}
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
		if err := s.Serve(l); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
		s.Close()
	}
}

// TCP is a program that gives each connection to serve, which closes it.
func TCP(serve func(*net.TCPConn)) func(net.Listener) {
	return func(l net.Listener) {
		var serving sync.WaitGroup
		defer serving.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(c.(*net.TCPConn)) })
		}
	}
}

// Named is a program that answers with its name and what it was asked.
func Named(name string) func(net.Listener) {
	return HTTP(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pod", name)
		w.Header().Set("X-Proto", r.Proto)
		w.Header().Set("X-Asked", r.Method+" "+r.Host+r.RequestURI)
		w.Header().Set("Content-Length", strconv.Itoa(len(name)))
		w.Write([]byte(name))
	})
}

// Within bounds what should happen at once.
func Within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

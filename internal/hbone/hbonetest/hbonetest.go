// Package hbonetest is the one conformance test that every transport of HBONE
// passes: what the interface of internal/hbone promises, over real sockets on
// the loopback interface. Transports call Run in their tests; it has no other
// users.
package hbonetest

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Transport makes the two ends that are tested.
type Transport struct {
	Dialer func(hbone.Credentials) hbone.Dialer
	// Server listens on the loopback interface and tells where. Refusals go to
	// refused.
	Server func(t testing.TB, self spiffe.ID, c hbone.Credentials, h hbone.Handler, refused func(error)) (hbone.Server, netip.AddrPort)
}

// Patience is how long anything may take that should happen at once.
const Patience = 20 * time.Second

// Run tests tr.
func Run(t *testing.T, tr Transport) {
	t.Helper()
	for _, tt := range slicesConcat(openTests, endTests, bulkTests, deadlineTests, lifeTests, revokedTests, udpTests) {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, tr) })
	}
	for _, tt := range identityTests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, tr) })
	}
}

// test is one promise.
type test struct {
	name string
	run  func(*testing.T, Transport)
}

func slicesConcat(all ...[]test) (out []test) {
	for _, tests := range all {
		out = append(out, tests...)
	}
	return out
}

// The two workloads of most tests.
var (
	clientID = certstest.ID("shop", "front")
	serverID = certstest.ID("shop", "reviews")
)

// rig is one server and one tunnel to it.
type rig struct {
	t      *testing.T
	ca     *certstest.CA
	certs  *certs.Manager
	server hbone.Server
	addr   netip.AddrPort
	stop   func() // ends the server's context
	served chan error
	dialer hbone.Dialer
	tunnel hbone.Tunnel
}

// newRig serves h and dials.
func newRig(t *testing.T, tr Transport, h hbone.Handler) *rig {
	t.Helper()
	ca := certstest.New(t)
	c := ca.Credentials(t, clientID, serverID)
	r := newRigOf(t, tr, h, c, c)
	r.ca, r.certs = ca, c
	return r
}

// newRigOf is newRig of two ends that have different credentials.
func newRigOf(t *testing.T, tr Transport, h hbone.Handler, client, server hbone.Credentials) *rig {
	t.Helper()
	r := &rig{t: t, served: make(chan error, 1)}
	r.server, r.addr = tr.Server(t, serverID, server, h, func(error) {})
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.served <- r.server.Serve(ctx) }()
	r.dialer = tr.Dialer(client)
	r.tunnel = r.dial()
	t.Cleanup(func() {
		r.tunnel.Close()
		cancel()
		r.awaitServed()
	})
	return r
}

func (r *rig) dial() hbone.Tunnel {
	r.t.Helper()
	tunnel, err := r.dialer.Dial(within(r.t), r.target())
	if err != nil {
		r.t.Fatal(err)
	}
	return tunnel
}

func (r *rig) target() hbone.Target {
	return hbone.Target{Address: r.addr, Self: clientID, Accept: []spiffe.ID{serverID}}
}

func (r *rig) awaitServed() {
	r.t.Helper()
	select {
	case err := <-r.served:
		if err != nil {
			r.t.Errorf("Serve: %v", err)
		}
		r.served <- nil
	case <-time.After(Patience):
		r.t.Error("Serve does not return")
	}
}

// open opens a stream that must be accepted.
func (r *rig) open() hbone.Stream {
	r.t.Helper()
	s, _, err := r.tunnel.Open(within(r.t), hbone.Request{Authority: "10.0.0.7:8080"})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// within bounds what should happen at once.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// do fails the test if f does not return.
func do(t *testing.T, what string, f func()) {
	t.Helper()
	doWhile(t, what, func() int64 { return 0 }, f)
}

// doWhile fails the test if f neither returns nor moves anything.
func doWhile(t *testing.T, what string, moved func() int64, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	for last := moved(); ; {
		select {
		case <-done:
			return
		case <-time.After(Patience):
		}
		now := moved()
		if now == last {
			t.Fatalf("%s: nothing moves for %v", what, Patience)
		}
		last = now
	}
}

// until waits for a condition that nothing announces.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not so after %v", what, Patience)
		}
	}
}

// accept is a handler that accepts and gives the stream to serve.
func accept(serve func(hbone.Incoming, hbone.Stream)) hbone.Handler {
	return func(in hbone.Incoming) {
		if s, err := in.Accept(nil); err == nil {
			serve(in, s)
		}
	}
}

// handing accepts and hands the streams to the test, keeping them open until
// the server ends.
func handing(t *testing.T) (hbone.Handler, func() hbone.Stream) {
	streams := make(chan hbone.Stream)
	h := accept(func(in hbone.Incoming, s hbone.Stream) {
		select {
		case streams <- s:
			<-in.Context().Done()
		case <-in.Context().Done():
		}
	})
	next := func() hbone.Stream {
		t.Helper()
		select {
		case s := <-streams:
			return s
		case <-time.After(Patience):
			t.Fatal("no stream arrived")
			return nil
		}
	}
	return h, next
}

func isStatus(err error) *hbone.StatusError {
	e, _ := errors.AsType[*hbone.StatusError](err)
	return e
}

// Package push gives the newest model to the proxies that are connected.
//
// It owns the step from a mesh.Model to snapshots with generations, and the
// pace of changes. It refuses to know the protocol, which is
// internal/xds's, and what a resource holds, which is istiod-lite/snapshot's.
// Driven by the root package of istiod-lite, one Publish at a time.
package push

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/snapshot"
)

// Config configures a Pusher.
type Config struct {
	// Authenticate names the caller of a stream or refuses it with a gRPC
	// status; nil admits everyone.
	Authenticate func(context.Context) (caller string, err error)
	// Identifier is shown to clients as the control plane's name.
	Identifier string
	// Observer is told what is pushed; may be nil.
	Observer xds.Observer
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// Pusher serves the newest published model.
type Pusher struct {
	server *xds.Server
	now    atomic.Pointer[state]

	// Publish's goroutine only.
	last       *snapshot.Ztunnel
	waypoints  *snapshot.Waypoints
	generation uint64
}

// New makes a pusher; clients wait until the first Publish.
func New(cfg Config) *Pusher {
	p := &Pusher{}
	p.server = xds.NewServer(xds.ServerConfig{
		Source: current{p}, Authenticate: cfg.Authenticate, Late: snapshot.Late, Moves: snapshot.Moves, StandIns: snapshot.StandIns, Guards: snapshot.Guards,
		Identifier: cfg.Identifier, Observer: cfg.Observer, Logger: cfg.Logger,
	})
	return p
}

// Register adds the discovery service to a gRPC server.
func (p *Pusher) Register(g grpc.ServiceRegistrar) { p.server.Register(g) }

// Publish pushes a model, unless it is the one that was pushed last. changed
// is when its earliest change was seen. It does not wait for clients, and
// reports the generation that holds the model.
func (p *Pusher) Publish(m mesh.Model, changed time.Time) (generation uint64) {
	next, waypoints := snapshot.ForZtunnels(p.last, m), snapshot.ForWaypoints(p.waypoints, m)
	old, oldWaypoints := p.last, p.waypoints
	p.last, p.waypoints = next, waypoints
	if old != nil && same(old, next) && waypoints.Same(oldWaypoints) {
		return p.generation
	}
	p.generation++
	p.now.Store(&state{
		generation: p.generation, changed: changed, addresses: next.Types[xds.TypeAddress], waypoints: waypoints,
		ztunnels: &xds.Snapshot{Generation: p.generation, Changed: changed, Types: next.Types},
		of:       map[snapshot.Gateway]*xds.Snapshot{},
	})
	p.server.Notify()
	return p.generation
}

// state is one generation: what each kind of client holds in it.
type state struct {
	generation uint64
	changed    time.Time
	addresses  xds.Resources
	waypoints  *snapshot.Waypoints
	ztunnels   *xds.Snapshot

	mu sync.Mutex
	of map[snapshot.Gateway]*xds.Snapshot // of waypoints that asked
}

// waypoint is what one waypoint holds, the same for all of its replicas.
func (s *state) waypoint(g snapshot.Gateway) *xds.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[g] == nil {
		s.of[g] = &xds.Snapshot{Generation: s.generation, Changed: s.changed, Types: map[string]xds.Resources{
			xds.TypeAddress: s.addresses, xds.TypeWaypoint: s.waypoints.Of(g),
		}}
	}
	return s.of[g]
}

// same compares by pointers: what did not change keeps its own.
func same(a, b *snapshot.Ztunnel) bool {
	return maps.EqualFunc(a.Types, b.Types, func(x, y xds.Resources) bool { return maps.Equal(x, y) })
}

// Status lists the connected clients and how far they are.
func (p *Pusher) Status() []xds.ClientStatus { return p.server.Status() }

// Close ends all streams.
func (p *Pusher) Close() { p.server.Close() }

// current is the Source of the server. Every ztunnel holds the whole mesh at
// L4; a waypoint holds its addresses, and routes and policies of its own.
type current struct{ p *Pusher }

// Snapshot implements xds.Source. A waypoint's Gateway is in the namespace of
// the account that it proved to have, so none can read another's.
func (c current) Snapshot(peer xds.Peer) *xds.Snapshot {
	now := c.p.now.Load()
	switch {
	case now == nil:
		return nil
	case peer.Gateway == "":
		return now.ztunnels
	}
	namespace, _, _ := strings.Cut(peer.Caller, "/")
	return now.waypoint(snapshot.Gateway{Namespace: namespace, Name: peer.Gateway})
}

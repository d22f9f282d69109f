// Package push gives the newest model to the proxies that are connected.
//
// It owns the step from a mesh.Model to snapshots with generations, and the
// debouncing of changes. It refuses to know the protocol, which is
// internal/xds's, and what a resource holds, which is istiod-lite/snapshot's.
// Driven by the root package of istiod-lite, one Publish at a time.
package push

import (
	"context"
	"log/slog"
	"maps"
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
	now    atomic.Pointer[xds.Snapshot]

	// Publish's goroutine only.
	last       *snapshot.Ztunnel
	generation uint64
}

// New makes a pusher; clients wait until the first Publish.
func New(cfg Config) *Pusher {
	p := &Pusher{}
	p.server = xds.NewServer(xds.ServerConfig{
		Source: current{p}, Authenticate: cfg.Authenticate, Late: snapshot.Late,
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
	next := snapshot.ForZtunnels(p.last, m)
	if p.last != nil && same(p.last, next) {
		p.last = next
		return p.generation
	}
	p.last = next
	p.generation++
	p.now.Store(&xds.Snapshot{Generation: p.generation, Changed: changed, Types: next.Types})
	p.server.Notify()
	return p.generation
}

// same compares by pointers: what did not change keeps its own.
func same(a, b *snapshot.Ztunnel) bool {
	return maps.EqualFunc(a.Types, b.Types, func(x, y xds.Resources) bool { return maps.Equal(x, y) })
}

// Status lists the connected clients and how far they are.
func (p *Pusher) Status() []xds.ClientStatus { return p.server.Status() }

// Close ends all streams.
func (p *Pusher) Close() { p.server.Close() }

// current is the Source of the server. Every ztunnel holds the whole mesh.
type current struct{ p *Pusher }

// Snapshot implements xds.Source.
func (c current) Snapshot(xds.Peer) *xds.Snapshot { return c.p.now.Load() }

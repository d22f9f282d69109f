package exchange

import (
	"context"
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Arrival is what is known of a connection before its first request.
type Arrival struct {
	// Peer is the client's identity, from its certificate.
	Peer spiffe.ID
	// Source is the client's address, Dialled what it asked for.
	Source, Dialled netip.AddrPort
	// Service is what was dialled, at Port. If it is zero, Workload is the UID of
	// a workload dialled by its own address.
	Service  mesh.ServiceKey
	Port     uint16
	Workload string
	// Client is the client's workload as it describes itself, for records where
	// the mesh knows nobody at its address.
	Client *mesh.Workload
	// TraceParent is that of the tunnel.
	TraceParent string
}

type arrivalKey struct{}

func withArrival(ctx context.Context, a *Arrival) context.Context {
	return context.WithValue(ctx, arrivalKey{}, a)
}

func arrivalOf(ctx context.Context) *Arrival {
	a, _ := ctx.Value(arrivalKey{}).(*Arrival)
	return a
}

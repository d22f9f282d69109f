package outbound

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// decide asks where the connection goes. While only a waypoint is missing or has
// nobody to take it, it waits for the mesh to change, until the flight's
// patience ends or too many wait already. What failed before it waited may be
// tried again after that.
func (f *flight) decide(ctx context.Context, avoid []netip.AddrPort) (route.OutboundDecision, []netip.AddrPort) {
	v := f.Store.View()
	defer func() { f.flow.Generation = v.Configuration() }()
	d := f.route(v, avoid)
	if !d.Pending {
		return d, avoid
	}
	select {
	case f.waiting <- struct{}{}:
		defer func() { <-f.waiting }()
	default:
		d.Reason += fmt.Sprintf("; %d connections of this pod wait for waypoints already", cap(f.waiting))
		return d, avoid
	}
	if f.patience.IsZero() {
		f.patience = time.Now().Add(f.WaypointTimeout)
	}
	ctx, cancel := context.WithDeadline(ctx, f.patience)
	defer cancel()
	for d.Pending {
		select {
		case <-v.Superseded():
			v = f.Store.View()
			d, avoid = f.route(v, nil), nil
		case <-ctx.Done():
			d.Reason += fmt.Sprintf("; waited %s", f.WaypointTimeout)
			return d, avoid
		}
	}
	return d, avoid
}

func (f *flight) route(v *view.View, avoid []netip.AddrPort) route.OutboundDecision {
	if f.plainly != nil {
		return route.Datagrams(v, f.src, f.dst, rand.IntN, avoid, f.affinities.of)
	}
	return route.OutboundAgain(v, f.src, f.dst, rand.IntN, avoid, f.affinities.of)
}

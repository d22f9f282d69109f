package route

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// Datagrams decides where a flow of UDP of the local workload src to dst goes, as
// OutboundAgain does for a connection. Dial and the kinds are UDP's: Passthrough
// and Plain send to there, HBONE asks for a CONNECT-UDP.
//
// What a waypoint is for does not go past it: it takes no UDP, so nothing is sent.
// A port that the mesh does not know of a service that it knows is the cluster's to
// find: so are all those of services without a selector.
func Datagrams(v *view.View, src *mesh.Workload, dst netip.AddrPort, rnd func(n int) int, avoid []netip.AddrPort, kept func(mesh.ServiceKey) string) OutboundDecision {
	if src == nil {
		return refuse("the workload that sends is not known here")
	}
	dst = netip.AddrPortFrom(plain(dst.Addr()), dst.Port())
	if dst.Addr().IsLoopback() && illegal(dst.Port()) {
		return refuse("%s is the proxy's own port", dst)
	}
	o := outbound{v: v, src: src, dst: dst, rnd: rnd, avoid: avoid, kept: kept, udp: true}
	s, w := known(v, src, dst.Addr())
	switch {
	case s != nil:
		d := o.datagramService(s)
		d.Service = s
		return d
	case w == nil:
		return o.stranger()
	case !w.Waypoint.IsZero() && !o.isWaypoint(w.Waypoint):
		return unpassable(w.Waypoint)
	}
	return o.workload(w)
}

func (o *outbound) datagramService(s *mesh.Service) OutboundDecision {
	g := o.serviceWaypoint(s)
	_, declared := s.DatagramPort(o.dst.Port())
	switch {
	case !declared:
		return OutboundDecision{Kind: Passthrough, Dial: o.dst, Reason: "the mesh knows of no such port of UDP of the service"}
	case !g.IsZero() && !o.isWaypoint(g):
		return unpassable(g)
	}
	return o.endpoint(s)
}

func unpassable(g mesh.GatewayAddress) OutboundDecision {
	return refuse("the destination is behind waypoint %s, which takes no UDP", g)
}

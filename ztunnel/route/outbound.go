package route

import (
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
)

// Outbound decides where a connection of the local workload src to dst goes.
// rnd(n) is a random number in [0,n). avoid are endpoints, or addresses to
// dial, that were tried for this connection and failed.
func Outbound(v *view.View, src *mesh.Workload, dst netip.AddrPort, rnd func(n int) int, avoid []netip.AddrPort) OutboundDecision {
	if src == nil {
		return refuse("the workload that sends is not known here")
	}
	dst = netip.AddrPortFrom(plain(dst.Addr()), dst.Port())
	if dst.Addr().IsLoopback() && illegal(dst.Port()) {
		return refuse("%s is the proxy's own port", dst)
	}
	o := outbound{v: v, src: src, dst: dst, rnd: rnd, avoid: avoid}
	if s := v.ServiceByVIP(src.Network, dst.Addr(), src.Namespace); s != nil {
		d := o.service(s)
		d.Service = s
		return d
	}
	if w := v.WorkloadByAddress(src.Network, dst.Addr()); w != nil {
		return o.workload(w)
	}
	return OutboundDecision{Kind: Passthrough, Dial: dst, Reason: "the destination is not in the mesh"}
}

// outbound is one decision in the making.
type outbound struct {
	v     *view.View
	src   *mesh.Workload
	dst   netip.AddrPort
	rnd   func(int) int
	avoid []netip.AddrPort
}

// service routes what was sent to a VIP. Only the service's own waypoint
// counts then, never its endpoints'.
func (o *outbound) service(s *mesh.Service) OutboundDecision {
	if g := o.serviceWaypoint(s); !g.IsZero() && !o.isWaypoint(g) {
		return o.waypoint(g)
	}
	if s.LoadBalancing.Mode == mesh.BalancePassthrough {
		return OutboundDecision{Kind: Passthrough, Dial: o.dst, Reason: "the service asks for no balancing"}
	}
	if _, ok := s.Port(o.dst.Port()); !ok {
		return refuse("service %s has no port %d", s.Key(), o.dst.Port())
	}
	c, why := o.choose(s, o.dst.Port(), false)
	if c.workload == nil {
		return refuse("service %s has no endpoint to use: %s", s.Key(), why)
	}
	d := o.direct(c.workload, c.at)
	d.Accept = append(d.Accept, s.SubjectAltNames...)
	return d
}

// workload routes what was sent to a pod's own address.
func (o *outbound) workload(w *mesh.Workload) OutboundDecision {
	if !w.Waypoint.IsZero() && !o.isWaypoint(w.Waypoint) {
		return o.waypoint(w.Waypoint)
	}
	d := o.direct(w, o.dst)
	if d.avoided(o.avoid) {
		return refuse("%s was tried already", o.dst)
	}
	return d
}

// direct goes straight to a workload.
func (o *outbound) direct(w *mesh.Workload, at netip.AddrPort) OutboundDecision {
	if w.Network != o.src.Network {
		return refuse("%s is in network %q: gateways between networks are not supported", w.UID, w.Network)
	}
	if w.Tunnel != mesh.TunnelHBONE {
		return OutboundDecision{Kind: Plain, Dial: at, Workload: w, Endpoint: at, Reason: "the destination does not accept HBONE"}
	}
	return OutboundDecision{
		Kind: HBONE, Dial: netip.AddrPortFrom(at.Addr(), hbonePort), Authority: at.String(),
		Accept: []spiffe.ID{w.Identity()}, Workload: w, Endpoint: at,
	}
}

func (d OutboundDecision) avoided(avoid []netip.AddrPort) bool {
	return slices.Contains(avoid, d.Dial) || slices.Contains(avoid, d.Endpoint)
}

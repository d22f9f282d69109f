package route

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// Outbound decides where a connection of the local workload src to dst goes.
// rnd(n) is a random number in [0,n). avoid are endpoints, or addresses to
// dial, that were tried for this connection and failed.
func Outbound(v *view.View, src *mesh.Workload, dst netip.AddrPort, rnd func(n int) int, avoid []netip.AddrPort) OutboundDecision {
	return OutboundAgain(v, src, dst, rnd, avoid, func(mesh.ServiceKey) string { return "" })
}

// OutboundAgain is Outbound for a client that remembers, of services with
// affinity, the endpoint that it has: kept gives its UID, or nothing.
func OutboundAgain(v *view.View, src *mesh.Workload, dst netip.AddrPort, rnd func(n int) int, avoid []netip.AddrPort, kept func(mesh.ServiceKey) string) OutboundDecision {
	if src == nil {
		return refuse("the workload that sends is not known here")
	}
	dst = netip.AddrPortFrom(plain(dst.Addr()), dst.Port())
	if dst.Addr().IsLoopback() && illegal(dst.Port()) {
		return refuse("%s is the proxy's own port", dst)
	}
	o := outbound{v: v, src: src, dst: dst, rnd: rnd, avoid: avoid, kept: kept}
	s, w := known(v, src, dst.Addr())
	switch {
	case s != nil:
		d := o.service(s)
		d.Service = s
		return d
	case w != nil:
		return o.workload(w)
	}
	return o.stranger()
}

// stranger is what the mesh does not know.
func (o *outbound) stranger() OutboundDecision {
	if why := Outlawed(o.v, o.src, o.dst); why != "" {
		d := refuse("%s", why)
		d.Outlawed = true
		return d
	}
	return OutboundDecision{Kind: Passthrough, Dial: o.dst, Reason: "the destination is not in the mesh"}
}

// known is what the mesh has at an address, as src means it.
func known(v *view.View, src *mesh.Workload, a netip.Addr) (*mesh.Service, *mesh.Workload) {
	if s := v.ServiceByVIP(src.Network, a, src.Namespace); s != nil {
		return s, nil
	}
	return nil, v.WorkloadByAddress(src.Network, a)
}

// Outlawed says why src may not dial dst, or have it open; empty if it may.
// Only what the mesh does not know is closed to a workload of a mesh whose
// outboundTrafficPolicy is REGISTRY_ONLY, and never what stays inside the pod.
func Outlawed(v *view.View, src *mesh.Workload, dst netip.AddrPort) string {
	a := plain(dst.Addr())
	if src == nil || !src.Settings.RegistryOnly || a.IsLoopback() || slices.Contains(src.Addresses, a) {
		return ""
	}
	if s, w := known(v, src, a); s != nil || w != nil {
		return ""
	}
	return fmt.Sprintf("nothing of the mesh is at %s, and outboundTrafficPolicy is REGISTRY_ONLY", dst)
}

// outbound is one decision in the making.
type outbound struct {
	v     *view.View
	src   *mesh.Workload
	dst   netip.AddrPort
	rnd   func(int) int
	avoid []netip.AddrPort
	kept  func(mesh.ServiceKey) string
	udp   bool
}

// service routes what was sent to a VIP. Only the service's own waypoint
// counts then, never its endpoints'.
func (o *outbound) service(s *mesh.Service) OutboundDecision {
	if g := o.serviceWaypoint(s); !g.IsZero() && !o.isWaypoint(g) {
		return o.waypoint(g)
	}
	if _, ok := s.Port(o.dst.Port()); !ok && s.LoadBalancing.Mode != mesh.BalancePassthrough {
		return refuse("service %s has no port %d", s.Key(), o.dst.Port())
	}
	return o.endpoint(s)
}

// endpoint chooses one, for a port that the service has.
func (o *outbound) endpoint(s *mesh.Service) OutboundDecision {
	if s.LoadBalancing.Mode == mesh.BalancePassthrough {
		return OutboundDecision{Kind: Passthrough, Dial: o.dst, Reason: "the service asks for no balancing"}
	}
	c, why := o.choose(s, o.dst.Port(), false)
	if c.workload == nil {
		return refuse("service %s has no endpoint to use: %s", s.Key(), why)
	}
	d := o.direct(c.workload, c.at)
	d.Others = c.others
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
	switch {
	case !o.udp:
	case at.Addr().Zone() != "":
		return refuse("%s is known by name only, and UDP is not sent to names", w.UID)
	case !w.Settings.Datagrams && w.Network == o.src.Network:
		return OutboundDecision{Kind: Plain, Dial: at, Workload: w, Endpoint: at, Reason: "the UDP of the destination is not the mesh's"}
	}
	if w.Network != o.src.Network {
		return refuse("%s is in network %q: gateways between networks are not supported", w.UID, w.Network)
	}
	if at.Addr().Zone() != "" {
		return OutboundDecision{Kind: Plain, Dial: at, Host: w.Hostname, Workload: w, Endpoint: at, Reason: "the destination is known by name only"}
	}
	if w.Tunnel != mesh.TunnelHBONE {
		return OutboundDecision{Kind: Plain, Dial: at, Workload: w, Endpoint: at, Reason: "the destination does not accept HBONE"}
	}
	return OutboundDecision{
		Kind: HBONE, Dial: netip.AddrPortFrom(at.Addr(), hbonePort), Authority: at.String(),
		Accept: w.Identities(), Workload: w, Endpoint: at, OverH3: o.src.Settings.Transport.OverH3(w.Settings.Transport),
	}
}

func (d OutboundDecision) avoided(avoid []netip.AddrPort) bool {
	return slices.Contains(avoid, d.Dial) || slices.Contains(avoid, d.Endpoint)
}

package route

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

const hbonePort = hbone.Port

// serviceWaypoint is the waypoint this connection takes: one of the weighted
// ones in proportion, if any has weight, else the single one.
func (o *outbound) serviceWaypoint(s *mesh.Service) mesh.GatewayAddress {
	total := 0
	for _, w := range s.WeightedWaypoints {
		total += int(w.Weight)
	}
	if total == 0 {
		return s.Waypoint
	}
	n := o.rnd(total)
	for _, w := range s.WeightedWaypoints {
		if n -= int(w.Weight); n < 0 {
			return w.Destination
		}
	}
	return s.Waypoint
}

// waypoint goes through a waypoint, or nowhere.
func (o *outbound) waypoint(g mesh.GatewayAddress) OutboundDecision {
	c, why := o.findGateway(g)
	if c.workload == nil {
		d := refuse("waypoint %s: %s", g, why)
		d.Pending = true
		return d
	}
	if c.workload.Network != o.src.Network {
		return refuse("waypoint %s is in network %q: gateways between networks are not supported", g, c.workload.Network)
	}
	return OutboundDecision{
		Kind: HBONE, Dial: c.at, Authority: o.dst.String(),
		Accept: c.workload.Identities(), Workload: c.workload, Endpoint: c.at, Waypoint: true, Others: c.others,
	}
}

// findGateway resolves a reference to one instance.
func (o *outbound) findGateway(g mesh.GatewayAddress) (candidate, string) {
	s := gatewayService(o.v, g, o.src.Namespace)
	if s != nil {
		c, why := o.choose(s, g.Port, true)
		return c, "no instance to use: " + why
	}
	if !g.Address.IsValid() {
		return candidate{}, "its service is not known here"
	}
	w := o.v.WorkloadByAddress(g.Network, g.Address)
	if w == nil {
		return candidate{}, "its address is not known here"
	}
	c := candidate{workload: w, at: netip.AddrPortFrom(plain(g.Address), g.Port)}
	if o.tried(c) {
		return candidate{}, "it was tried already"
	}
	return c, ""
}

// gatewayService is the service a reference names, if it names one.
func gatewayService(v *view.View, g mesh.GatewayAddress, clientNamespace string) *mesh.Service {
	if !g.Address.IsValid() {
		return v.Service(g.Service)
	}
	return v.ServiceByVIP(g.Network, g.Address, clientNamespace)
}

// isWaypoint reports whether the sender is an instance of that waypoint: what
// it sends has been through it already.
func (o *outbound) isWaypoint(g mesh.GatewayAddress) bool { return servesGateway(o.v, o.src, g) }

// servesGateway reports whether w is an instance of the waypoint g.
func servesGateway(v *view.View, w *mesh.Workload, g mesh.GatewayAddress) bool {
	if g.IsZero() {
		return false
	}
	if s := gatewayService(v, g, w.Namespace); s != nil {
		_, ok := w.Services[s.Key()]
		return ok
	}
	return g.Address.IsValid() && v.WorkloadByAddress(g.Network, g.Address) == w
}

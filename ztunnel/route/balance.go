package route

import (
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// candidate is an endpoint with the address that would be used of it.
type candidate struct {
	workload *mesh.Workload
	at       netip.AddrPort
	others   bool // there are more to choose from
}

// choose picks an endpoint of s for a service port (dataplane spec 2.4), or
// says why there is none. As a gateway the port need not be declared by an
// instance that has an application tunnel. It looks twice rather than keep a
// list: a service may have thousands of endpoints, and every connection asks.
func (o *outbound) choose(s *mesh.Service, port uint16, gateway bool) (candidate, string) {
	endpoints := o.v.Endpoints(s.Key())
	if len(endpoints) == 0 {
		return candidate{}, "it has none"
	}
	best, total, usable, why := 0, 0, 0, excuse{}
	for i := range endpoints {
		_, rank, ok := o.consider(s, &endpoints[i], port, gateway, &why)
		if ok {
			usable++
		}
		switch {
		case !ok || rank < best:
		case rank > best:
			best, total = rank, int(endpoints[i].Workload.Capacity)
		default:
			total += int(endpoints[i].Workload.Capacity)
		}
	}
	if total == 0 {
		return candidate{}, why.String()
	}
	if s.Affinity > 0 {
		c := o.faithful(s, endpoints, port, gateway, best)
		c.others = usable > 1
		return c, ""
	}
	n := o.rnd(total)
	for i := range endpoints {
		c, rank, ok := o.consider(s, &endpoints[i], port, gateway, &why)
		if !ok || rank != best {
			continue
		}
		if n -= int(c.workload.Capacity); n < 0 {
			c.others = usable > 1
			return c, ""
		}
	}
	return candidate{}, why.String() // rnd gave more than it was asked for
}

// consider makes a candidate of an endpoint, with its rank, or notes why not.
func (o *outbound) consider(s *mesh.Service, e *view.Endpoint, port uint16, gateway bool, why *excuse) (candidate, int, bool) {
	c, ok := o.usable(s, e, port, gateway, why)
	if !ok {
		return c, 0, false
	}
	rank, ok := s.LoadBalancing.Rank(o.src, e.Workload)
	if !ok {
		why.far = true
	}
	return c, rank, ok
}

// usable makes a candidate whatever its locality.
func (o *outbound) usable(s *mesh.Service, e *view.Endpoint, port uint16, gateway bool, why *excuse) (candidate, bool) {
	w := e.Workload
	target := o.target(s, e, port)
	if target == 0 && gateway && w.AppTunnelPort != 0 {
		target = port
	}
	switch {
	case target == 0:
		why.port = true
	case w.Unhealthy && !s.LoadBalancing.AllowUnhealthy:
		why.health = true
	case w.Capacity == 0:
		why.capacity = true
	case w.Network != o.src.Network:
		why.network = true
	default:
		c := candidate{workload: w}
		if a, ok := o.addressOf(s, w); ok {
			c.at = netip.AddrPortFrom(a, target)
		} else if len(w.Addresses) == 0 && w.Hostname != "" && w.Tunnel == mesh.TunnelNone && !gateway {
			c.at = named(w.Hostname, target)
		} else {
			why.address = true
			return candidate{}, false
		}
		if o.tried(c) {
			why.tried = true
			return candidate{}, false
		}
		return c, true
	}
	return candidate{}, false
}

// target is the port of an endpoint that is meant; 0 if it serves none.
func (o *outbound) target(s *mesh.Service, e *view.Endpoint, port uint16) uint16 {
	if o.udp {
		return s.DatagramTarget(e.Workload, port)
	}
	return s.Target(e.Ports, port)
}

// tried reports whether a candidate failed for this connection before.
func (o *outbound) tried(c candidate) bool {
	if len(o.avoid) == 0 {
		return false
	}
	tunnel := netip.AddrPortFrom(c.at.Addr(), hbonePort)
	return slices.Contains(o.avoid, c.at) || c.workload.Tunnel == mesh.TunnelHBONE && slices.Contains(o.avoid, tunnel)
}

// addressOf picks one of a workload's addresses: the one dialled if it is its
// own; else of a family that the service has, preferably the family dialled.
func (o *outbound) addressOf(s *mesh.Service, w *mesh.Workload) (netip.Addr, bool) {
	var found netip.Addr
	for _, a := range w.Addresses {
		a = plain(a)
		if a == o.dst.Addr() {
			return a, true
		}
		if s.Families == mesh.FamiliesIPv4 && !a.Is4() || s.Families == mesh.FamiliesIPv6 && a.Is4() {
			continue
		}
		if !found.IsValid() || a.Is4() == o.dst.Addr().Is4() && found.Is4() != o.dst.Addr().Is4() {
			found = a
		}
	}
	return found, found.IsValid()
}

// excuse remembers why endpoints were passed over, to name the first cause
// that a user would look for.
type excuse struct {
	tried, health, port, far, network, address, capacity bool
}

func (e excuse) String() string {
	switch {
	case e.tried:
		return "every one was tried already"
	case e.health:
		return "none is ready"
	case e.far:
		return "none is where its policy of locality demands"
	case e.port:
		return "none serves the port"
	case e.network:
		return "they are in another network: gateways between networks are not supported"
	case e.address:
		return "none has an address of the service's family"
	}
	return "all have capacity 0"
}

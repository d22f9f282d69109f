package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
)

// Inbound decides on a connection that arrived at the pod local.
func Inbound(v *view.View, local *mesh.Workload, in InboundRequest) InboundDecision {
	if local == nil {
		return answer(hbone.StatusUnavailable, "the destination workload is not known here")
	}
	in.ConnDst = netip.AddrPortFrom(plain(in.ConnDst.Addr()), in.ConnDst.Port())
	var d InboundDecision
	switch {
	case in.Authority == "":
		in.Source = spiffe.ID{}
		d = plaintext(v, local, in)
	case in.Source.IsZero():
		// The handshake demands a certificate; without one nobody is asking.
		return answer(hbone.StatusUnauthorized, "the peer has no identity")
	default:
		d = tunnelled(v, local, in)
	}
	if d.Status != hbone.StatusOK {
		return d
	}
	d.Verdict = Judge(v, local, policy.Connection{Source: in.Source, SourceIP: in.SourceIP, Destination: d.Upstream})
	d.Reason = d.Verdict.String()
	if !d.Verdict.Allow {
		d.Status = hbone.StatusUnauthorized
	}
	return d
}

// Judge gives the verdict of today's policies on a connection, new or open.
// The current record of the workload counts; the one given is used only if its
// record is gone. A peer that is known by an alias of the trust domain has to go
// when the alias does.
func Judge(v *view.View, local *mesh.Workload, c policy.Connection) policy.Verdict {
	if local == nil {
		return policy.Verdict{}
	}
	if now := v.Workload(local.UID); now != nil {
		local = now
	}
	if !c.Source.IsZero() && !local.Trusts(c.Source) {
		return policy.Verdict{Cause: policy.CauseForeign, Rule: -1}
	}
	return policy.Evaluate(v.Policies(local), c)
}

// plaintext goes on to where it was going.
func plaintext(v *view.View, local *mesh.Workload, in InboundRequest) InboundDecision {
	if illegal(in.ConnDst.Port()) {
		return answer(hbone.StatusUnavailable, "port %d is the proxy's own", in.ConnDst.Port())
	}
	return InboundDecision{Status: hbone.StatusOK, Upstream: in.ConnDst, Service: serviceMeant(v, local, in, in.ConnDst.Port())}
}

// tunnelled checks what a CONNECT asks for (dataplane spec 1.5). Whatever it
// says, the connection ends at the address that the tunnel came to.
func tunnelled(v *view.View, local *mesh.Workload, in InboundRequest) InboundDecision {
	host, port, err := splitAuthority(in.Authority)
	if err != nil {
		return answer(hbone.StatusBadRequest, "%v", err)
	}
	var service *mesh.Service
	if a, err := netip.ParseAddr(host); err == nil {
		if plain(a) != in.ConnDst.Addr() && !relays(v, local, plain(a)) {
			return answer(hbone.StatusBadRequest, "%s is not the address %s that was connected to", host, in.ConnDst.Addr())
		}
	} else if service, port, err = portOfHost(v, local, host, port); err != nil {
		return answer(hbone.StatusUnavailable, "%v", err)
	}
	if illegal(port) {
		return answer(hbone.StatusUnavailable, "port %d is the proxy's own", port)
	}
	if local.AppTunnelPort != 0 {
		port = local.AppTunnelPort
	}
	if service == nil {
		service = serviceMeant(v, local, in, port)
	}
	return InboundDecision{Status: hbone.StatusOK, Upstream: netip.AddrPortFrom(in.ConnDst.Addr(), port), Service: service}
}

// relays reports whether local stands in front of an address that is not its
// own: it has an application tunnel, or is the waypoint of what is there.
func relays(v *view.View, local *mesh.Workload, a netip.Addr) bool {
	if local.AppTunnelPort != 0 || local.AppTunnelProxy {
		return true
	}
	if s := v.ServiceByVIP(local.Network, a, local.Namespace); s != nil {
		return isWaypointOf(v, local, s)
	}
	w := v.WorkloadByAddress(local.Network, a)
	return w != nil && servesGateway(v, local, w.Waypoint)
}

func isWaypointOf(v *view.View, local *mesh.Workload, s *mesh.Service) bool {
	for _, w := range s.WeightedWaypoints {
		if servesGateway(v, local, w.Destination) {
			return true
		}
	}
	return servesGateway(v, local, s.Waypoint)
}

// portOfHost finds the port that local serves a named service at.
func portOfHost(v *view.View, local *mesh.Workload, host string, port uint16) (*mesh.Service, uint16, error) {
	s := v.ServiceByHostname(strings.TrimSuffix(host, "."), local.Namespace)
	if s == nil {
		return nil, 0, fmt.Errorf("service %s is not known here", host)
	}
	ports, serves := local.Services[s.Key()]
	if !serves {
		if local.AppTunnelPort != 0 || isWaypointOf(v, local, s) {
			return s, port, nil
		}
		return nil, 0, fmt.Errorf("the destination is no endpoint of service %s", s.Key())
	}
	target := s.Target(ports, port)
	if target == 0 {
		return nil, 0, fmt.Errorf("the destination does not serve port %d of service %s", port, s.Key())
	}
	return s, target, nil
}

// serviceMeant is the service that the peer says it meant, or a guess.
func serviceMeant(v *view.View, local *mesh.Workload, in InboundRequest, port uint16) *mesh.Service {
	if s := v.ServiceByHostname(strings.TrimSuffix(in.Host, "."), local.Namespace); in.Host != "" && s != nil {
		if _, serves := local.Services[s.Key()]; serves {
			return s
		}
	}
	return serviceOfPort(v, local, port, in.Datagrams)
}

// serviceOfPort guesses the service of a connection to a pod's port, for
// telemetry: the first by key of those it serves there.
func serviceOfPort(v *view.View, local *mesh.Workload, port uint16, datagrams bool) *mesh.Service {
	var found *mesh.Service
	for k, ports := range local.Services {
		s := v.Service(k)
		if s == nil || found != nil && found.Key().String() < k.String() {
			continue
		}
		if datagrams {
			if slices.ContainsFunc(s.DatagramPorts, func(p mesh.Port) bool { return s.DatagramTarget(local, p.Service) == port }) {
				found = s
			}
			continue
		}
		for _, p := range ports {
			if p.Target == port || p.Target == 0 && s.Target(ports, p.Service) == port {
				found = s
			}
		}
	}
	return found
}

func splitAuthority(authority string) (string, uint16, error) {
	i := strings.LastIndexByte(authority, ':')
	if i <= 0 {
		return "", 0, fmt.Errorf("authority %q has no port", authority)
	}
	host := authority[:i]
	port, err := strconv.ParseUint(authority[i+1:], 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("authority %q has no valid port", authority)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if host, ok = strings.CutSuffix(inner, "]"); !ok || host == "" {
			return "", 0, fmt.Errorf("authority %q is no address", authority)
		}
	} else if strings.Contains(host, ":") {
		return "", 0, fmt.Errorf("authority %q wants brackets", authority)
	}
	return host, uint16(port), nil
}

func answer(status int, format string, args ...any) InboundDecision {
	return InboundDecision{Status: status, Reason: fmt.Sprintf(format, args...)}
}

package ztunnel

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/outbound"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// connects tells what would become of a connection that nobody makes: the very
// decisions of both ends, once for every outcome of chance.
func (p *proxy) connects(a *decision.Asked) (decision.Forecast, error) {
	f := &foresight{v: p.store.View(), network: p.config.Self.Network, asked: a, certified: p.certified}
	f.findSource()
	to, err := f.addresses()
	if err != nil {
		return decision.Forecast{}, err
	}
	for _, dst := range to {
		if f.src == nil || f.src.Tunnel != mesh.TunnelHBONE {
			f.uncaptured(dst)
		} else {
			f.captured(dst)
		}
	}
	return f.answer(), nil
}

// certified is an error if this proxy speaks for an identity and has no
// certificate to show for it.
func (p *proxy) certified(id spiffe.ID) error {
	for _, s := range p.certs.List() {
		if s.ID == id && (s.State == certs.StateUnavailable || s.State == certs.StateExpired) {
			return fmt.Errorf("the client's node has no certificate of %s: %w", id, s.Err)
		}
	}
	return nil
}

// foresight is one question in the making.
type foresight struct {
	v         *view.View
	network   string
	asked     *decision.Asked
	certified func(spiffe.ID) error
	src       *mesh.Workload // nil for a client that is not of the mesh

	fates    []fate
	waypoint string
}

// fate is one thing that may happen.
type fate struct {
	told    *decision.Carried
	allowed bool
	says    string
}

// findSource finds the client's record by its address, or that of any pod with
// the identity. An account without pods is taken for one that is captured.
func (f *foresight) findSource() {
	if f.asked.Address.IsValid() {
		f.src = f.v.WorkloadByAddress(f.network, f.asked.Address.Addr())
		return
	}
	id := f.asked.Source
	f.src = &mesh.Workload{
		UID: "an account without pods", Namespace: id.Namespace, ServiceAccount: id.ServiceAccount, TrustDomain: id.TrustDomain,
		Network: f.network, Tunnel: mesh.TunnelHBONE,
	}
	for _, w := range f.v.Workloads() {
		if w.Identity() == id && len(w.Addresses) > 0 {
			f.src = w
			return
		}
	}
}

// addresses are what the client's DNS would give for the destination.
func (f *foresight) addresses() ([]netip.AddrPort, error) {
	a := f.asked
	if ip, err := netip.ParseAddr(a.Host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip, a.Port)}, nil
	}
	s := decision.Service(f.v, a.Host, a.Source.Namespace)
	if s == nil {
		return nil, fmt.Errorf("no service %s is known here; what is not of the mesh is asked about by its address", a.Host)
	}
	for _, vip := range s.Addresses {
		if vip.Network == f.network && vip.Prefix.IsSingleIP() {
			return []netip.AddrPort{netip.AddrPortFrom(vip.Prefix.Addr(), a.Port)}, nil
		}
	}
	var out []netip.AddrPort // a headless service: its endpoints
	for _, e := range f.v.Endpoints(s.Key()) {
		if len(e.Workload.Addresses) > 0 && (!e.Workload.Unhealthy || s.LoadBalancing.AllowUnhealthy) {
			out = append(out, netip.AddrPortFrom(e.Workload.Addresses[0], a.Port))
		}
	}
	if len(out) == 0 {
		f.add(f.carried(netip.AddrPort{}, s, nil), false, "no endpoint of "+s.Key().String()+" is ready, so its name has no address")
	}
	return out, nil
}

// manyFates bounds the outcomes of chance that are looked at.
const manyFates = 64

// captured follows what a pod of the mesh would send.
func (f *foresight) captured(dst netip.AddrPort) {
	seen := map[netip.AddrPort]bool{}
	for chance, n := 0, 1; chance < min(n, manyFates); chance++ {
		d := route.Outbound(f.v, f.src, dst, func(of int) int { n = max(n, of); return min(chance, of-1) }, nil)
		if !seen[d.Endpoint] {
			seen[d.Endpoint] = true
			f.follow(dst, d)
		}
	}
}

func (f *foresight) follow(dst netip.AddrPort, d route.OutboundDecision) {
	c := f.carried(dst, d.Service, d.Workload)
	c.Choice = outbound.Choice(d)
	c.Flow.DestinationAddr, c.Flow.HBONEAddr = d.Dial, d.Authority
	switch d.Kind {
	case route.Passthrough:
		f.add(c, true, "passed on in clear: "+d.Reason)
	case route.Plain:
		f.add(c, true, "in clear: "+d.Reason)
	case route.HBONE:
		f.tunnelled(c, d)
	case route.Refuse:
		c.Choice = ""
		f.add(c, false, d.Reason)
	}
}

// tunnelled is what the other end would say.
func (f *foresight) tunnelled(c *decision.Carried, d route.OutboundDecision) {
	if err := f.certified(f.src.Identity()); err != nil {
		f.add(c, false, err.Error())
		return
	}
	c.Flow.SourceID, c.Flow.DestinationID = f.src.Identity(), d.Accept[0]
	if d.Waypoint {
		f.waypoint = waypointOfWorkload(f.v, d.Workload)
		f.add(c, false, "a waypoint decides on it")
		return
	}
	if got := d.Workload.Identity(); got != d.Accept[0] {
		f.add(c, false, fmt.Sprintf("the server would be %s, not %s", got, d.Accept[0]))
		return
	}
	r := route.InboundRequest{Authority: d.Authority, ConnDst: d.Dial, Source: f.src.Identity(), SourceIP: f.address(d.Dial.Addr())}
	if d.Service != nil {
		r.Host = d.Service.Hostname
	}
	f.arrives(c, d.Workload, r)
}

// arrives asks the end of a pod.
func (f *foresight) arrives(c *decision.Carried, w *mesh.Workload, r route.InboundRequest) {
	in := route.Inbound(f.v, w, r)
	if in.Verdict.Cause != policy.CauseNone {
		c.Verdict, c.Policies = in.Verdict, f.v.Policies(w)
		c.Asked = &policy.Request{Connection: policy.Connection{Source: r.Source, SourceIP: r.SourceIP, Destination: in.Upstream}}
	}
	if c.Flow.Service == nil {
		c.Flow.Service = in.Service
	}
	f.add(c, in.Status == hbone.StatusOK, in.Reason)
}

// uncaptured follows what somebody else would send, in clear: to what was
// dialled, or to each endpoint that the node's own balancing may choose.
func (f *foresight) uncaptured(dst netip.AddrPort) {
	s := f.v.ServiceByVIP(f.network, dst.Addr(), f.asked.Source.Namespace)
	if s == nil {
		f.plain(dst, nil, f.v.WorkloadByAddress(f.network, dst.Addr()))
		return
	}
	found := false
	for _, e := range f.v.Endpoints(s.Key()) {
		port := s.Target(e.Ports, dst.Port())
		if port == 0 || len(e.Workload.Addresses) == 0 || e.Workload.Unhealthy && !s.LoadBalancing.AllowUnhealthy {
			continue
		}
		found = true
		f.plain(netip.AddrPortFrom(e.Workload.Addresses[0], port), s, e.Workload)
	}
	if !found {
		f.add(f.carried(dst, s, nil), false, "no endpoint of "+s.Key().String()+" is ready")
	}
}

// plain is an arrival in clear: only a pod that is captured asks its policies.
func (f *foresight) plain(dst netip.AddrPort, s *mesh.Service, w *mesh.Workload) {
	c := f.carried(dst, s, w)
	c.Choice, c.Flow.DestinationAddr = "the client is not captured: in clear, and without an identity", dst
	if w == nil || w.Tunnel != mesh.TunnelHBONE || w.NativeTunnel {
		f.add(c, true, "in clear: neither end is captured, and nobody asks a policy")
		return
	}
	f.arrives(c, w, route.InboundRequest{ConnDst: dst, SourceIP: f.address(dst.Addr())})
}

// address is the client's, of the family that is dialled.
func (f *foresight) address(to netip.Addr) netip.Addr {
	if f.src != nil {
		for _, a := range f.src.Addresses {
			if a.Is4() == to.Is4() {
				return a
			}
		}
	}
	return f.asked.Address.Addr()
}

func (f *foresight) carried(dst netip.AddrPort, s *mesh.Service, w *mesh.Workload) *decision.Carried {
	c := &decision.Carried{Start: time.Now(), Flow: telemetry.Flow{
		SourceAddr: f.asked.Address, Source: f.src, Service: s, Destination: w, Generation: f.v.Configuration(),
	}}
	if dst.IsValid() {
		c.Dialled = dst.String()
	}
	return c
}

func (f *foresight) add(c *decision.Carried, allowed bool, says string) {
	f.fates = append(f.fates, fate{c, allowed, says})
}

// answer is no if one fate is, since nobody knows which it would be.
func (f *foresight) answer() decision.Forecast {
	told, refused := f.fates[0], 0
	for _, fate := range f.fates {
		if fate.allowed {
			continue
		}
		if refused++; told.allowed {
			told = fate // a refusal tells more
		}
	}
	out := decision.Forecast{Allowed: refused == 0, Says: told.says, Waypoint: f.waypoint, Story: told.told.Tell()}
	if refused > 0 && refused < len(f.fates) {
		out.Says = fmt.Sprintf("%d of %d endpoints would refuse it: %s", refused, len(f.fates), out.Says)
	}
	return out
}

// waypointOfWorkload names the service behind which a waypoint's pod stands.
func waypointOfWorkload(v *view.View, w *mesh.Workload) string {
	for k := range w.Services {
		if s := v.Service(k); s != nil {
			return k.String()
		}
	}
	return w.UID
}

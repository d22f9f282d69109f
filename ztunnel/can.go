package ztunnel

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// can tells whether the endpoints of a service would let a connection in that
// nobody makes. Every ztunnel knows every workload and policy, so any can be
// asked. What a waypoint serves, the waypoint decides on.
func (p *proxy) can(_ context.Context, a *decision.Asked) (decision.Forecast, error) {
	if a.Request == nil {
		return p.connects(a)
	}
	v := p.store.View()
	s := decision.Service(v, a.Host, a.Source.Namespace)
	if s == nil {
		return decision.Forecast{}, fmt.Errorf("no service %s is known here", a.Host)
	}
	if !s.Waypoint.IsZero() || len(s.WeightedWaypoints) > 0 {
		return decision.Forecast{Waypoint: waypointOf(v, s), Says: "a waypoint decides on it"}, nil
	}
	if _, ok := s.Port(a.Port); !ok {
		return decision.Forecast{}, fmt.Errorf("service %s has no port %d", s.Key(), a.Port)
	}
	return foresee(v, s, a), nil
}

// waypointOf names the service of a service's waypoint.
func waypointOf(v *view.View, s *mesh.Service) string {
	g := s.Waypoint
	if g.IsZero() {
		g = s.WeightedWaypoints[0].Destination
	}
	if g.Address.IsValid() {
		if w := v.ServiceByVIP(g.Network, g.Address, s.Namespace); w != nil {
			return w.Key().String()
		}
	}
	return g.String()
}

// foresee asks for each endpoint that could be chosen. The answer is no if one
// of them says so, since nobody knows which it would be.
func foresee(v *view.View, s *mesh.Service, a *decision.Asked) decision.Forecast {
	var told *decision.Carried
	asked, allowed := 0, 0
	for _, e := range v.Endpoints(s.Key()) {
		port := s.Target(e.Ports, a.Port)
		if port == 0 || e.Workload.Unhealthy && !s.LoadBalancing.AllowUnhealthy || len(e.Workload.Addresses) == 0 {
			continue
		}
		c := carried(v, s, e.Workload, netip.AddrPortFrom(e.Workload.Addresses[0], port), a)
		asked++
		if c.Verdict.Allow {
			allowed++
		}
		if told == nil || told.Verdict.Allow {
			told = c // a denial tells more
		}
	}
	if told == nil {
		c := &decision.Carried{Flow: telemetry.Flow{SourceID: a.Source, SourceAddr: a.Address, Service: s, Generation: v.Configuration()}, Start: time.Now()}
		return decision.Forecast{Says: "no endpoint of " + s.Key().String() + " is ready", Story: c.Tell()}
	}
	f := decision.Forecast{Allowed: allowed == asked, Says: told.Verdict.String(), Story: told.Tell()}
	if allowed != asked && allowed > 0 {
		f.Says = fmt.Sprintf("%d of %d endpoints would refuse it: %s", asked-allowed, asked, f.Says)
	}
	return f
}

// carried is what the ztunnel of an endpoint would decide. One that takes no
// tunnel is in clear, where nobody has an identity and no policy is asked.
func carried(v *view.View, s *mesh.Service, w *mesh.Workload, to netip.AddrPort, a *decision.Asked) *decision.Carried {
	c := &decision.Carried{
		Start: time.Now(), Dialled: fmt.Sprintf("%s:%d", s.Hostname, a.Port),
		Flow: telemetry.Flow{
			SourceID: a.Source, SourceAddr: a.Address, Service: s, Destination: w, DestinationAddr: to, Generation: v.Configuration(),
		},
	}
	if w.Tunnel != mesh.TunnelHBONE {
		c.Choice, c.Verdict = "it takes no tunnel: in clear, and nobody asks a policy", policy.Verdict{Allow: true, Cause: policy.CauseNoPolicy, Rule: -1}
		return c
	}
	facts := policy.Connection{Source: a.Source, SourceIP: a.Address.Addr(), Destination: to}
	c.Flow.DestinationID = w.Identity()
	c.Verdict, c.Policies, c.Asked = route.Judge(v, w, facts), v.Policies(w), &policy.Request{Connection: facts}
	c.Outcome = telemetry.Outcome{Policy: c.Verdict.Policy, Reason: c.Verdict.String()}
	return c
}

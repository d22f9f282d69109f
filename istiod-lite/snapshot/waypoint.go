package snapshot

import (
	"maps"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
)

// Waypoints is what waypoints may hold beside the addresses that every proxy
// holds. It is immutable.
type Waypoints struct {
	// traffic is how to treat the endpoints of services: any waypoint may come to
	// use any. single are all others.
	traffic, single xds.Resources
	// everybody is what each waypoint gets, whatever it serves. of is that with
	// a waypoint's own, if it has any.
	everybody xds.Resources
	of        map[Gateway]xds.Resources

	model mesh.Model
}

// Gateway names a waypoint by its Gateway object; its service has that name too.
type Gateway struct{ Namespace, Name string }

func gatewayOf(service mesh.ServiceKey) Gateway {
	name, _, _ := strings.Cut(service.Hostname, ".")
	return Gateway{service.Namespace, name}
}

// ForWaypoints makes the waypoint resources of a model. As in ForZtunnels, what
// prev made of the same pointers is taken over.
func ForWaypoints(prev *Waypoints, m mesh.Model) *Waypoints {
	if prev == nil {
		prev = &Waypoints{}
	}
	e, s := change{old: prev.traffic}, change{old: prev.single}
	follow(&e, prev.model.Traffic, m.Traffic, wire.TrafficName, traffic)
	follow(&s, prev.model.Routes, m.Routes, wire.RouteName, route)
	follow(&s, prev.model.Policies, m.Policies, wire.PolicyName, targetPolicy)
	follow(&s, prev.model.Authentications, m.Authentications, wire.AuthenticationName, authentication)
	w := &Waypoints{traffic: e.result(), single: s.result(), model: m}
	w.share(prev)
	return w
}

// share gives each waypoint its own. A waypoint's resources are the map of prev
// if nothing in it changed.
func (w *Waypoints) share(prev *Waypoints) {
	w.of = map[Gateway]xds.Resources{}
	everybody := maps.Clone(w.traffic)
	give := func(service mesh.ServiceKey, r *xds.Resource) {
		g := gatewayOf(service)
		if g.Name == "" || r == nil {
			return
		}
		if w.of[g] == nil {
			w.of[g] = xds.Resources{}
		}
		w.of[g][r.Name] = r
	}
	target := func(t mesh.Target, r *xds.Resource) {
		switch {
		case t.Class && r != nil:
			everybody[r.Name] = r
		case !t.Class:
			give(t.Gateway, r)
			w.servedBy(t.Service, func(waypoint mesh.ServiceKey) { give(waypoint, r) })
		}
	}
	for k, x := range w.model.Routes {
		for _, p := range x.Parents {
			w.servedBy(p.Service, func(waypoint mesh.ServiceKey) { give(waypoint, w.single[wire.RouteName(k)]) })
		}
	}
	for k, x := range w.model.Policies {
		for _, t := range x.Targets {
			target(t, w.single[wire.PolicyName(k)])
		}
	}
	for k, x := range w.model.Authentications {
		for _, t := range x.Targets {
			target(t, w.single[wire.AuthenticationName(k)])
		}
	}
	for g, own := range w.of {
		maps.Copy(own, everybody)
		if old := prev.of[g]; maps.Equal(old, own) {
			w.of[g] = old
		}
	}
	if w.everybody = everybody; maps.Equal(prev.everybody, everybody) && prev.everybody != nil {
		w.everybody = prev.everybody
	}
}

// servedBy visits the waypoints in front of a service.
func (w *Waypoints) servedBy(k mesh.ServiceKey, visit func(mesh.ServiceKey)) {
	s := w.model.Services[k]
	if s == nil {
		return
	}
	visit(s.Waypoint.Service)
	for _, x := range s.WeightedWaypoints {
		visit(x.Destination.Service)
	}
}

// Of is what one waypoint holds.
func (w *Waypoints) Of(g Gateway) xds.Resources {
	if own, ok := w.of[g]; ok {
		return own
	}
	return w.everybody
}

// Same reports whether every waypoint holds in both what it holds in the other.
func (w *Waypoints) Same(o *Waypoints) bool {
	return maps.Equal(w.everybody, o.everybody) && maps.EqualFunc(w.of, o.of, func(a, b xds.Resources) bool { return maps.Equal(a, b) })
}

// Guards reports whether a resource protects others: policies do, and what
// verifies tokens.
func Guards(typ, name string) bool {
	return typ == xds.TypeAuthorization || typ == xds.TypeWaypoint && wire.GuardsWaypoint(name)
}

func route(r *mesh.Route) *xds.Resource {
	return &xds.Resource{Name: wire.RouteName(r.Key), Body: wire.MarshalRoute(r)}
}

// targetPolicy is nil for a policy that ztunnels enforce.
func targetPolicy(p *mesh.Policy) *xds.Resource {
	if p.Scope != mesh.ScopeTargets {
		return nil
	}
	return &xds.Resource{Name: wire.PolicyName(p.Key), Body: wire.MarshalTargetPolicy(p)}
}

func traffic(t *mesh.Traffic) *xds.Resource {
	return &xds.Resource{Name: wire.TrafficName(t.Service), Body: wire.MarshalTraffic(t)}
}

func authentication(a *mesh.Authentication) *xds.Resource {
	return &xds.Resource{Name: wire.AuthenticationName(a.Key), Body: wire.MarshalAuthentication(a)}
}

package translate

import (
	"cmp"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// slot is what routes of different kinds cannot share: a service's port, as
// clients of one group see it. The groups are the service's own namespace and
// each that has consumer routes; they never mix (GEP-1294), so nobody's route
// silences one of another namespace.
type slot struct {
	service objects.Key
	port    uint16
	group   string
}

// routing is the Translator's part for routes.
type routing struct {
	routes          published[mesh.RouteKey, *mesh.Route]
	drawings        map[mesh.RouteKey]*drawn
	routesNaming    sets[objects.Key, mesh.RouteKey] // a service, as parent or as backend
	routesOfGateway sets[objects.Key, mesh.RouteKey]
	routesAt        sets[objects.Key, mesh.RouteKey] // a service that is their parent
	claims          sets[slot, mesh.RouteKey]
	winners         map[slot]mesh.RouteKey
	servings        map[objects.Key]serving // that routes at a service were told of
}

func newRouting(routes published[mesh.RouteKey, *mesh.Route]) routing {
	return routing{
		routes: routes, drawings: map[mesh.RouteKey]*drawn{},
		routesNaming: sets[objects.Key, mesh.RouteKey]{}, routesOfGateway: sets[objects.Key, mesh.RouteKey]{}, routesAt: sets[objects.Key, mesh.RouteKey]{},
		claims: sets[slot, mesh.RouteKey]{}, winners: map[slot]mesh.RouteKey{}, servings: map[objects.Key]serving{},
	}
}

// dirtyRoutes is what of it must be made anew.
type dirtyRoutes struct {
	draw   map[mesh.RouteKey]bool
	finish map[mesh.RouteKey]bool
	slots  map[slot]bool
}

func newDirtyRoutes() dirtyRoutes {
	return dirtyRoutes{map[mesh.RouteKey]bool{}, map[mesh.RouteKey]bool{}, map[slot]bool{}}
}

// seeRoute takes note of a route. What controllers write into its status
// changes nothing.
func seeRoute[T any, P interface {
	*T
	metav1.Object
}](seen *map[objects.Key]*T, set map[objects.Key]*T, ref objects.Ref, spec func(*T) any, d *dirty) {
	old, now, _ := swap(seen, set, ref.Key)
	if old != nil && now != nil && P(old).GetGeneration() == P(now).GetGeneration() &&
		P(old).GetCreationTimestamp() == P(now).GetCreationTimestamp() && reflect.DeepEqual(spec(old), spec(now)) {
		return
	}
	d.routes.draw[routeKey(ref)] = true
}

// seeRouteGateway marks the routes that name a Gateway as their parent.
func (t *Translator) seeRouteGateway(k objects.Key, old, now *gateway.Gateway, d *dirty) {
	if old != nil && now != nil && old.Spec.GatewayClassName == now.Spec.GatewayClassName {
		return
	}
	for r := range t.routesOfGateway[k] {
		d.routes.draw[r] = true
	}
}

// seeRouteService marks the routes that speak of a service.
func (t *Translator) seeRouteService(k objects.Key, old, now *corev1.Service, d *dirty) {
	if old != nil && now != nil && old.Spec.Type == now.Spec.Type && reflect.DeepEqual(old.Spec.Ports, now.Spec.Ports) &&
		(len(clusterIPs(old)) == 0) == (len(clusterIPs(now)) == 0) {
		return
	}
	for r := range t.routesNaming[k] {
		d.routes.draw[r] = true
	}
}

// drawRoutes makes routes anew: each by itself, then who has which port.
func (t *Translator) drawRoutes(d *dirty) {
	for k := range d.routes.draw {
		t.redraw(k, d)
		d.routes.finish[k] = true
	}
	for s := range d.routes.slots {
		t.redoSlot(s, d)
	}
}

// finishRoutes makes what comes of it, once services know their waypoints.
func (t *Translator) finishRoutes(d *dirty) {
	t.redoServing(d)
	for k := range d.routes.finish {
		t.finish(k)
	}
}

// redraw converts a route, and takes or leaves its places.
func (t *Translator) redraw(k mesh.RouteKey, d *dirty) {
	at := func(index func(objects.Key, mesh.RouteKey)) func(objects.Key, mesh.RouteKey) {
		return func(service objects.Key, k mesh.RouteKey) {
			index(service, k)
			if t.isAuto(service) { // it may need its waypoint now, or not any more
				d.services[service] = true
			}
		}
	}
	if old := t.drawings[k]; old != nil {
		t.eachPlace(k, old, t.routesNaming.del, t.routesOfGateway.del, at(t.routesAt.del), func(s slot, k mesh.RouteKey) {
			t.claims.del(s, k)
			d.routes.slots[s] = true
		})
		delete(t.drawings, k)
	}
	src := t.routeSource(k)
	if src == nil {
		return
	}
	now := t.draw(src)
	t.drawings[k] = now
	t.eachPlace(k, now, t.routesNaming.put, t.routesOfGateway.put, at(t.routesAt.put), func(s slot, k mesh.RouteKey) {
		t.claims.put(s, k)
		d.routes.slots[s] = true
	})
}

// eachPlace visits what a drawing speaks of, and the ports it claims: one
// without any rule claims none.
func (t *Translator) eachPlace(k mesh.RouteKey, d *drawn, service, gate, at func(objects.Key, mesh.RouteKey), claim func(slot, mesh.RouteKey)) {
	for _, s := range d.services {
		service(s, k)
	}
	for _, g := range d.gateways {
		gate(g, k)
	}
	for _, a := range d.attachments {
		if a.kind == parentService {
			at(a.object, k)
		}
		for _, p := range a.ports {
			if len(d.rules) > 0 {
				claim(slot{a.object, p, k.Namespace}, k)
			}
		}
	}
}

// redoSlot finds who has a slot, and marks those that hear another name.
func (t *Translator) redoSlot(s slot, d *dirty) {
	was, now := t.winners[s], mesh.RouteKey{}
	for k := range t.claims[s] {
		if now.IsZero() || beforeRoute(k, now) {
			now = k
		}
	}
	if now == was {
		return
	}
	if now.IsZero() {
		delete(t.winners, s)
		return
	}
	t.winners[s] = now
	for k := range t.claims[s] {
		if k.Kind != now.Kind || k.Kind != was.Kind {
			d.routes.finish[k] = true
		}
	}
}

// beforeRoute orders routes by kind, then name.
func beforeRoute(a, b mesh.RouteKey) bool {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name)) < 0
}

// redoServing marks the routes of services that are served otherwise than they
// were told. Only services say so far who serves them.
func (t *Translator) redoServing(d *dirty) {
	if len(d.services) == 0 {
		return
	}
	for k := range t.servings {
		if len(t.routesAt[k]) == 0 {
			delete(t.servings, k)
		}
	}
	for k, routes := range t.routesAt {
		now := t.serving(k)
		if t.servings[k] == now {
			continue
		}
		t.servings[k] = now
		for r := range routes {
			d.routes.finish[r] = true
		}
	}
}

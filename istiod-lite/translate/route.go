package translate

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// routeKinds are the kinds of routes as objects.
var routeKinds = map[objects.Kind]mesh.RouteKind{
	objects.KindGRPCRoute: mesh.RouteGRPC,
	objects.KindHTTPRoute: mesh.RouteHTTP,
	objects.KindTLSRoute:  mesh.RouteTLS,
	objects.KindTCPRoute:  mesh.RouteTCP,
}

func routeKey(ref objects.Ref) mesh.RouteKey {
	return mesh.RouteKey{Kind: routeKinds[ref.Kind], Namespace: ref.Key.Namespace, Name: ref.Key.Name}
}

func routeRef(k mesh.RouteKey) objects.Ref {
	return objects.Ref{Kind: objects.Kind(k.Kind.String()), Key: objects.Key{Namespace: k.Namespace, Name: k.Name}}
}

// routeSource is what routes of every kind have.
type routeSource struct {
	key       mesh.RouteKey
	meta      *metav1.ObjectMeta
	parents   []gateway.ParentReference
	hostnames []gateway.Hostname
	// rules makes them all, and notes in the conversion what is wrong.
	rules func(*ruleConversion) []mesh.RouteRule
}

// routeSource finds a route; nil if it is not there.
func (t *Translator) routeSource(key mesh.RouteKey) *routeSource {
	k := objects.Key{Namespace: key.Namespace, Name: key.Name}
	switch key.Kind {
	case mesh.RouteGRPC:
		if r := t.seen.GRPCRoutes[k]; r != nil {
			return &routeSource{key, &r.ObjectMeta, r.Spec.ParentRefs, r.Spec.Hostnames, grpcRules(r)}
		}
	case mesh.RouteHTTP:
		if r := t.seen.HTTPRoutes[k]; r != nil {
			return &routeSource{key, &r.ObjectMeta, r.Spec.ParentRefs, r.Spec.Hostnames, httpRules(r)}
		}
	case mesh.RouteTLS:
		if r := t.seen.TLSRoutes[k]; r != nil {
			return &routeSource{key, &r.ObjectMeta, r.Spec.ParentRefs, nil, tlsRules(r)}
		}
	case mesh.RouteTCP:
		if r := t.seen.TCPRoutes[k]; r != nil {
			return &routeSource{key, &r.ObjectMeta, r.Spec.ParentRefs, nil, tcpRules(r)}
		}
	}
	return nil
}

// drawn is a route by itself: without what other routes and waypoints make of
// it.
type drawn struct {
	attachments []attachment
	rules       []mesh.RouteRule
	broken      []broken
	unresolved  []unresolved
	// whole is false if no rule works as it was written.
	whole bool
	notes string
	// refused is what happens to what no backend is there for.
	refused string
	// services and gateways are what it speaks of, as parents or as backends.
	services, gateways []objects.Key
}

// draw converts a route.
func (t *Translator) draw(r *routeSource) *drawn {
	c := &ruleConversion{
		mesh: t.seen.Mesh, kind: r.key.Kind, namespace: r.key.Namespace, name: r.key.Name,
		service: func(k objects.Key) *corev1.Service { return t.seen.Services[k] },
	}
	d := &drawn{rules: r.rules(c), broken: c.broken, unresolved: c.unresolved, services: c.services}
	d.whole = len(c.broken) < c.rules
	d.refused = [...]string{"answered UNAVAILABLE", "answered 500", "closed", "closed"}[r.key.Kind&3]
	if len(r.hostnames) > 0 {
		d.notes = "Hostnames are not looked at: traffic comes by the service's address."
	}
	seen := map[Parent]bool{}
	for _, ref := range r.parents {
		p := parentOf(ref)
		if seen[p] {
			continue
		}
		seen[p] = true
		a, ours := t.attach(r.key, p)
		switch a.kind {
		case parentService:
			d.services = append(d.services, a.object)
		case parentGateway:
			d.gateways = append(d.gateways, a.object)
		}
		if ours {
			d.attachments = append(d.attachments, a)
		}
	}
	return d
}

package translate

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// WaypointClass is the GatewayClass of waypoints.
const WaypointClass = "istio-waypoint"

// The groups of parents.
const (
	groupCore     = "core" // written by mistake for the empty one, and understood
	groupGateway  = gateway.GroupName
	groupIstio    = "networking.istio.io"
	kindGateway   = "Gateway"
	kindService   = "Service"
	kindForeign   = "ServiceEntry"
	kindHostnames = "Hostname"
)

// parentOf is a reference as the API server stores it: the group and the kind
// are always there.
func parentOf(r gateway.ParentReference) Parent {
	p := Parent{Group: groupGateway, Kind: kindGateway, Name: string(r.Name)}
	if r.Group != nil {
		p.Group = string(*r.Group)
	}
	if r.Kind != nil {
		p.Kind = string(*r.Kind)
	}
	p.Namespace = string(valueOf(r.Namespace))
	p.SectionName = string(valueOf(r.SectionName))
	p.Port = valueOf(r.Port)
	return p
}

// valueOf is what a pointer points to, or the zero value.
func valueOf[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// parentKind is what a parent is to this mesh.
type parentKind uint8

const (
	parentForeign parentKind = iota
	parentService
	parentGateway
)

// attachment is one parent of a route, looked at without other routes.
type attachment struct {
	parent Parent
	kind   parentKind
	object objects.Key
	// reason says why the parent does not take the route, with message; empty
	// if it does.
	reason, message string
	// ports are those it asks for, all is set if they are all the service has.
	ports []uint16
	all   bool
	// unsuited says which ports it covers without being about them.
	unsuited string
}

// attach looks at one parent. A parent that is not ours is told nothing.
func (t *Translator) attach(route mesh.RouteKey, p Parent) (a attachment, ours bool) {
	a = attachment{parent: p, object: objects.Key{Namespace: firstOf(p.Namespace, route.Namespace), Name: p.Name}}
	core := p.Group == "" || p.Group == groupCore
	switch {
	case core && p.Kind == kindService:
		a.kind = parentService
		a.toService(t.seen.Services[a.object], route.Kind)
	case p.Group == groupGateway && p.Kind == kindService:
		a.refuse(ReasonNoMatchingParent, "Services are of the group \"\", not %s, which stands where no group is written.", p.Group)
	case p.Group == groupIstio && (p.Kind == kindForeign || p.Kind == kindHostnames):
		a.refuse(ReasonUnsupportedValue, "Routes are attached to Services only, not to a %s.", p.Kind)
	case p.Group == groupGateway && p.Kind == kindGateway:
		a.kind = parentGateway
		g := t.seen.Gateways[a.object]
		if g == nil || !IsWaypoint(g, t.classOf(g)) {
			return a, false
		}
		a.refuse(ReasonNotAllowedByListeners, "Gateway %s is a waypoint: a route is attached to the Services that the waypoint serves, not to the waypoint.", a.object)
	default:
		return a, false
	}
	return a, true
}

func (a *attachment) refuse(reason, format string, args ...any) {
	a.reason, a.message = reason, fmt.Sprintf(format, args...)
}

// toService finds the ports of a service that a route asks for.
func (a *attachment) toService(s *corev1.Service, kind mesh.RouteKind) {
	switch {
	case s == nil:
		a.refuse(ReasonNoMatchingParent, "Service %s is not there.", a.object)
		return
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		a.refuse(ReasonNoMatchingParent, "Service %s is of type ExternalName: traffic to it never comes to its waypoint.", a.object)
		return
	case len(clusterIPs(s)) == 0:
		a.refuse(ReasonNoMatchingParent, "Service %s is headless: traffic to it goes straight to its pods.", a.object)
		return
	}
	ports := portsOf(s, corev1.ProtocolTCP)
	asked := slices.DeleteFunc(slices.Clone(ports), func(p corev1.ServicePort) bool {
		return a.parent.Port != 0 && p.Port != a.parent.Port || a.parent.SectionName != "" && p.Name != a.parent.SectionName
	})
	if len(asked) == 0 {
		a.refuse(ReasonNoMatchingParent, "Service %s has no TCP port%s.", a.object, a.parent.asked())
		return
	}
	var unsuited []string
	for _, p := range asked {
		if speaks(kind, appProtocol(p)) {
			a.ports = append(a.ports, uint16(p.Port))
		} else {
			unsuited = append(unsuited, fmt.Sprintf("Port %d is declared %s: a route of kind %s is not about it.", p.Port, declared(p), kind))
		}
	}
	a.all = len(a.ports) == len(ports)
	a.unsuited = strings.Join(unsuited, " ")
	if len(a.ports) == 0 {
		a.refuse(ReasonNoMatchingParent, "%s", a.unsuited)
	}
}

// asked is the part of a reference that asks for a port, in words.
func (p Parent) asked() string {
	var out string
	if p.Port != 0 {
		out += fmt.Sprintf(" %d", p.Port)
	}
	if p.SectionName != "" {
		out += fmt.Sprintf(" named %q", p.SectionName)
	}
	return out
}

// speaks reports whether a kind of route can be about a port that is declared
// so. A port that is not HTTP is never parsed as HTTP because a route covers it.
func speaks(kind mesh.RouteKind, app mesh.AppProtocol) bool {
	switch app {
	case mesh.AppHTTP11, mesh.AppHTTP2, mesh.AppGRPC:
		return kind == mesh.RouteHTTP || kind == mesh.RouteGRPC
	case mesh.AppTLS:
		return kind == mesh.RouteTLS || kind == mesh.RouteTCP
	case mesh.AppTCP:
		return kind == mesh.RouteTCP
	case mesh.AppUnknown:
	}
	return true
}

// declared is how a service port's protocol was declared.
func declared(p corev1.ServicePort) string {
	if p.AppProtocol != nil {
		return *p.AppProtocol
	}
	return "by its name, " + p.Name
}

package translate

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

const (
	labelUseWaypoint          = "istio.io/use-waypoint"
	labelUseWaypointNamespace = "istio.io/use-waypoint-namespace"
	labelWaypointFor          = "istio.io/waypoint-for"
	labelIngressUseWaypoint   = "istio.io/ingress-use-waypoint"
	labelManaged              = "gateway.istio.io/managed"
	labelGatewayName          = "gateway.networking.k8s.io/gateway-name"
	// annotationMissing says what becomes of traffic whose waypoint is missing.
	annotationMissing = "ambit.io/waypoint-missing"
)

// managedWaypoint reports whether an object belongs to a waypoint or to a
// gateway between networks: those have no waypoint in front of themselves.
func managedWaypoint(labels map[string]string) bool {
	m := labels[labelManaged]
	return m == "istio.io-mesh-controller" || m == "istio.io-eastwest-controller"
}

// naming is the waypoint that an object names, or its namespace for it.
type naming struct {
	gateway objects.Key // zero is none
	// own says that the object's own label names it.
	own bool
	// open lets traffic pass by a waypoint that has never been there.
	open bool
	// auto says that the waypoint is made when it is needed.
	auto bool
}

// namingOf reads the labels of an object, and else those of its namespace. The
// name "none" is none: an object's own keeps the namespace's away.
func namingOf(m objects.MeshConfig, o metav1.Object, ns *corev1.Namespace) naming {
	from, own := o, true
	if o.GetLabels()[labelUseWaypoint] == "" && ns != nil {
		from, own = metav1.Object(ns), false
	}
	name := from.GetLabels()[labelUseWaypoint]
	if name == "" || name == "none" {
		return naming{}
	}
	if name == auto {
		return naming{gateway: objects.Key{Namespace: o.GetNamespace(), Name: AutoWaypoint}, own: own, auto: true}
	}
	return naming{
		gateway: objects.Key{Namespace: firstOf(from.GetLabels()[labelUseWaypointNamespace], o.GetNamespace()), Name: name},
		own:     own,
		open:    firstOf(from.GetAnnotations()[annotationMissing], m.WaypointMissing) == objects.WaypointMissingDirect,
	}
}

// waypoint is what is known of a Gateway that may be a waypoint. The zero value
// is one that is not there.
type waypoint struct {
	there bool
	// class is the Gateway's, if that is not one of waypoints.
	class string
	// services and workloads are the traffic that it is for.
	services, workloads bool
	// from and selector are the namespaces whose objects may name it.
	from     gateway.FromNamespaces
	selector *metav1.LabelSelector
	// ready says that a pod of it is ready behind its Service; addressed, that
	// this was so once.
	ready, addressed bool
}

// waypointOf looks at a Gateway and its class.
func waypointOf(g *gateway.Gateway, class *gateway.GatewayClass) waypoint {
	if !IsWaypoint(g, class) {
		return waypoint{class: string(g.Spec.GatewayClassName)}
	}
	w := waypoint{there: true, from: gateway.NamespacesFromSame, addressed: len(g.Status.Addresses) > 0}
	serves := g.Labels[labelWaypointFor]
	if serves == "" && class != nil {
		serves = class.Labels[labelWaypointFor]
	}
	switch serves {
	case "workload":
		w.workloads = true
	case "all":
		w.services, w.workloads = true, true
	case "none":
	default: // what is not known must not open anything
		w.services = true
	}
	if allowed := tunnelListener(g).AllowedRoutes; allowed != nil && allowed.Namespaces != nil && allowed.Namespaces.From != nil {
		w.from, w.selector = *allowed.Namespaces.From, allowed.Namespaces.Selector
	}
	return w
}

// IsWaypoint reports whether a Gateway is of the class of waypoints, or of one
// with the same controller.
func IsWaypoint(g *gateway.Gateway, class *gateway.GatewayClass) bool {
	return g != nil && (g.Spec.GatewayClassName == WaypointClass || class != nil && class.Spec.ControllerName == MeshController)
}

// tunnelListener is the listener that waypoints serve, else the first.
func tunnelListener(g *gateway.Gateway) gateway.Listener {
	for _, l := range g.Spec.Listeners {
		if isTunnel(l) {
			return l
		}
	}
	if len(g.Spec.Listeners) > 0 {
		return g.Spec.Listeners[0]
	}
	return gateway.Listener{}
}

func isTunnel(l gateway.Listener) bool { return l.Port == hbone.Port && l.Protocol == "HBONE" }

// allows reports whether objects of a namespace may name the waypoint.
func (w waypoint) allows(home string, name string, ns *corev1.Namespace) bool {
	switch w.from {
	case gateway.NamespacesFromAll:
		return true
	case gateway.NamespacesFromSame:
		return name == home
	case gateway.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(w.selector)
		return err == nil && ns != nil && selector.Matches(labels.Set(ns.Labels))
	default:
		return false
	}
}

// waypointService is the service of a Gateway's waypoint.
func waypointService(m objects.MeshConfig, g objects.Key) mesh.GatewayAddress {
	return mesh.GatewayAddress{Service: serviceKey(m, g), Port: hbone.Port}
}

// standing is what is known of the waypoint at an address.
func (t *Translator) standing(g mesh.GatewayAddress) waypoint {
	name, _, _ := strings.Cut(g.Service.Hostname, ".")
	k := objects.Key{Namespace: g.Service.Namespace, Name: name}
	if waypointService(t.seen.Mesh, k) != g {
		return waypoint{} // it leads nowhere
	}
	return t.waypoints.state[k]
}

// waypoints is the Translator's part for them.
type waypoints struct {
	state    map[objects.Key]waypoint // of Gateways
	pods     groups[objects.Key]      // instances, by Gateway
	ofClass  groups[string]           // Gateways by class
	naming   groups[objects.Key]      // services, by Gateway
	podNames groups[objects.Key]      // pods, by Gateway
	entries  groups[objects.Key]      // ServiceEntries, by Gateway
	names    map[objects.Ref]objects.Key
	bound    map[objects.Key]Binding // of services
	autos    groups[objects.Key]     // services that need a Gateway made for them
}

func newWaypoints() waypoints {
	return waypoints{
		state: map[objects.Key]waypoint{}, pods: groups[objects.Key]{}, ofClass: groups[string]{},
		naming: groups[objects.Key]{}, podNames: groups[objects.Key]{}, entries: groups[objects.Key]{},
		names: map[objects.Ref]objects.Key{}, bound: map[objects.Key]Binding{}, autos: groups[objects.Key]{},
	}
}

// redoWaypoint looks at a Gateway again, and marks what names it if anything
// about it is different.
func (t *Translator) redoWaypoint(k objects.Key, d *dirty) {
	was, now := t.waypoints.state[k], waypoint{}
	if g := t.seen.Gateways[k]; g != nil {
		now = waypointOf(g, t.classOf(g))
		now.ready = now.there && t.waypointReady(k)
	}
	t.tellGateway(k)
	if reflect.DeepEqual(was, now) {
		return
	}
	if t.seen.Gateways[k] != nil {
		t.waypoints.state[k] = now
	} else {
		delete(t.waypoints.state, k)
	}
	d.guards.look = true
	mark(d.services, t.waypoints.naming[k])
	for e := range t.waypoints.entries[k] {
		d.entries[e.Namespace] = true
	}
	was.ready, now.ready = false, false // of which pods are not told
	if !reflect.DeepEqual(was, now) {
		mark(d.pods, t.waypoints.podNames[k])
	}
}

func mark(to, keys map[objects.Key]bool) {
	for k := range keys {
		to[k] = true
	}
}

func (t *Translator) classOf(g *gateway.Gateway) *gateway.GatewayClass {
	return t.seen.GatewayClasses[objects.Key{Name: string(g.Spec.GatewayClassName)}]
}

// waypointReady reports whether a waypoint takes connections: by its Service,
// which is its own, to a pod that is ready.
func (t *Translator) waypointReady(k objects.Key) bool {
	s := t.seen.Services[k]
	if s == nil || !managedWaypoint(s.Labels) {
		return false
	}
	for p := range t.waypoints.pods[k] {
		pod := t.seen.Pods[p]
		if ready(pod) && matches(podSelector(s), pod.Labels) && podWorkload(t.seen.Mesh, pod, mesh.Locality{}) != nil {
			return true
		}
	}
	return false
}

// named notes which waypoint an object names, in place of what it named.
func (t *Translator) named(ref objects.Ref, in groups[objects.Key], now objects.Key) {
	if was, had := t.waypoints.names[ref]; had {
		in.del(was, ref.Key)
		delete(t.waypoints.names, ref)
	}
	if now != (objects.Key{}) {
		in.put(now, ref.Key)
		t.waypoints.names[ref] = now
	}
}

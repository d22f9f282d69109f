package translate

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Binding is the waypoint in front of a service or a pod, and whether it
// serves. The zero value is none: nobody names one.
type Binding struct {
	// Gateway is the one named.
	Gateway objects.Key
	// Address is where proxies send the traffic. It is zero where traffic goes
	// directly although a Gateway is named, and leads nowhere where the waypoint
	// is not allowed to serve it: a proxy that cannot resolve it closes, so what
	// was to pass a waypoint never passes by it.
	Address mesh.GatewayAddress
	// Ready says that connections through it succeed now.
	Ready bool
	// Reason and Message are for the user.
	Reason, Message string
}

// traffic kinds that a waypoint may be for.
type trafficKind uint8

const (
	toServices trafficKind = iota
	toWorkloads
)

// Waypoint is the waypoint of a Service as of the last Update.
func (t *Translator) Waypoint(service objects.Key) Binding { return t.waypoints.bound[service] }

// bind decides about what an object names (controlplane spec 1.3).
func (t *Translator) bind(n naming, kind trafficKind, namespace string) Binding {
	if n.gateway == (objects.Key{}) {
		return Binding{}
	}
	w := t.waypoints.state[n.gateway]
	b := Binding{Gateway: n.gateway, Address: waypointService(t.seen.Mesh, n.gateway)}
	if !w.there && !n.own && kind == toWorkloads {
		return Binding{} // by default a namespace's waypoint is for services
	}
	switch {
	case w.class != "": // what serves it may be anything
		b.tell(ReasonWaypointIsNotReady, "Gateway %s is no waypoint: its class is %s.", n.gateway, w.class)
		b.close()
	case !w.there:
		b.tell(ReasonWaypointIsNotReady, "Waypoint %s is not there.", n.gateway)
	case !w.serves(kind):
		if kind == toWorkloads && !n.own {
			return Binding{}
		}
		b.tell(ReasonUnsupportedTrafficType, "Waypoint %s is not for traffic to %s (label %s): connections go directly.", n.gateway, kind, labelWaypointFor)
		b.Address = mesh.GatewayAddress{}
		return b
	case !w.allows(n.gateway.Namespace, namespace, t.seen.Namespaces[objects.Key{Name: namespace}]):
		b.tell(ReasonAttachmentDenied, "Waypoint %s is not for namespace %s: its listener's allowedRoutes do not allow it.", n.gateway, namespace)
		b.close()
		w = waypoint{}
	case !w.ready:
		b.tell(ReasonWaypointIsNotReady, "No pod of waypoint %s is ready.", n.gateway)
	default:
		b.Ready = true
		b.tell(ReasonWaypointAccepted, "Traffic to this service passes waypoint %s.", n.gateway)
		return b
	}
	if n.open && !w.addressed {
		b.Address = mesh.GatewayAddress{}
		b.Message += " Connections pass by it, as " + annotationMissing + " says."
	} else {
		b.Message += " Connections wait for it, and fail after 10 seconds."
	}
	return b
}

// deniedDomain ends the name of what no connection can be sent to (RFC 2606).
const deniedDomain = ".denied.invalid"

// close makes the address one that leads nowhere.
func (b *Binding) close() {
	b.Address.Service.Hostname = b.Gateway.Name + "." + b.Gateway.Namespace + deniedDomain
}

func (b *Binding) tell(reason, format string, args ...any) {
	b.Reason, b.Message = reason, fmt.Sprintf(format, args...)
}

func (w waypoint) serves(kind trafficKind) bool {
	if kind == toWorkloads {
		return w.workloads
	}
	return w.services
}

func (k trafficKind) String() string { return [...]string{"services", "workloads"}[k&1] }

// bindService finds the waypoint of a service.
func (t *Translator) bindService(k objects.Key, s *corev1.Service) Binding {
	n := naming{}
	if s != nil && !managedWaypoint(s.Labels) && s.Spec.Type != corev1.ServiceTypeExternalName {
		n = namingOf(t.seen.Mesh, s, t.seen.Namespaces[objects.Key{Name: k.Namespace}])
	}
	if was := t.waypoints.names[objects.Ref{Kind: objects.KindService, Key: k}]; was != n.gateway || !n.auto {
		t.waypoints.autos.del(was, k)
	}
	t.named(objects.Ref{Kind: objects.KindService, Key: k}, t.waypoints.naming, n.gateway)
	var b Binding
	if n.auto {
		b = t.bindAuto(k, n)
	} else {
		b = t.bind(n, toServices, k.Namespace)
	}
	if b == (Binding{}) {
		delete(t.waypoints.bound, k)
	} else {
		t.waypoints.bound[k] = b
	}
	return b
}

// bindPod finds the waypoint of what is sent to a pod's own address.
func (t *Translator) bindPod(k objects.Key, pod *corev1.Pod) Binding {
	n := naming{}
	if pod != nil && !managedWaypoint(pod.Labels) && pod.Labels[labelGatewayName] == "" {
		n = namingOf(t.seen.Mesh, pod, t.seen.Namespaces[objects.Key{Name: k.Namespace}])
	}
	if n.auto { // what is made for services is not for pods
		n = naming{}
	}
	t.named(objects.Ref{Kind: objects.KindPod, Key: k}, t.waypoints.podNames, n.gateway)
	return t.bind(n, toWorkloads, k.Namespace)
}

// bindEntry finds the waypoint of a ServiceEntry.
func (t *Translator) bindEntry(k objects.Key) Binding {
	n, se := naming{}, t.seen.ServiceEntries[k]
	if se != nil {
		n = namingOf(t.seen.Mesh, se, t.seen.Namespaces[objects.Key{Name: k.Namespace}])
	}
	if n.auto { // nothing is made for hosts outside of the cluster
		n = naming{}
	}
	t.named(objects.Ref{Kind: objects.KindServiceEntry, Key: k}, t.waypoints.entries, n.gateway)
	return t.bind(n, toServices, k.Namespace)
}

// condition tells an object's owner about its waypoint; none if it names none.
func (b Binding) condition(ref objects.Ref, generation int64) []Condition {
	if b.Reason == "" {
		return nil
	}
	return []Condition{{Object: ref, Generation: generation, Type: TypeWaypointBound, Status: b.Ready, Reason: b.Reason, Message: b.Message}}
}

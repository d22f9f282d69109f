package translate

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

const (
	labelUseWaypoint          = "istio.io/use-waypoint"
	labelUseWaypointNamespace = "istio.io/use-waypoint-namespace"
	labelIngressUseWaypoint   = "istio.io/ingress-use-waypoint"
	labelManaged              = "gateway.istio.io/managed"
	labelGatewayName          = "gateway.networking.k8s.io/gateway-name"
)

// managedWaypoint reports whether an object belongs to a waypoint or to a
// gateway between networks: those have no waypoint in front of themselves.
func managedWaypoint(labels map[string]string) bool {
	m := labels[labelManaged]
	return m == "istio.io-mesh-controller" || m == "istio.io-eastwest-controller"
}

// serviceWaypoint is the waypoint that a service or else its namespace names.
// It is a reference: a proxy that cannot resolve it closes, so traffic that
// was to pass a waypoint never passes by it.
func serviceWaypoint(m objects.MeshConfig, s *corev1.Service, ns *corev1.Namespace) mesh.GatewayAddress {
	if managedWaypoint(s.Labels) {
		return mesh.GatewayAddress{}
	}
	if s.Labels[labelUseWaypoint] != "" || ns == nil {
		return waypointNamed(m, s.Labels, s.Namespace)
	}
	return waypointNamed(m, ns.Labels, s.Namespace)
}

// podWaypoint is the waypoint that a pod itself names. A namespace's waypoint
// stands in front of its services only.
func podWaypoint(m objects.MeshConfig, pod *corev1.Pod) mesh.GatewayAddress {
	if managedWaypoint(pod.Labels) || pod.Labels[labelGatewayName] != "" {
		return mesh.GatewayAddress{}
	}
	return waypointNamed(m, pod.Labels, pod.Namespace)
}

func waypointNamed(m objects.MeshConfig, labels map[string]string, namespace string) mesh.GatewayAddress {
	name := labels[labelUseWaypoint]
	if name == "" || name == "none" {
		return mesh.GatewayAddress{}
	}
	k := objects.Key{Namespace: firstOf(labels[labelUseWaypointNamespace], namespace), Name: name}
	return mesh.GatewayAddress{Service: serviceKey(m, k), Port: hbone.Port}
}

// waypointCondition tells a service's owner whether its waypoint is there.
func waypointCondition(s *corev1.Service, g mesh.GatewayAddress, there bool) Condition {
	c := Condition{
		Object:     objects.Ref{Kind: objects.KindService, Key: objects.Key{Namespace: s.Namespace, Name: s.Name}},
		Generation: s.Generation,
		Type:       TypeWaypointBound,
		Status:     there,
		Reason:     ReasonWaypointAccepted,
		Message:    "Traffic to this service passes waypoint " + g.String() + ".",
	}
	if !there {
		c.Reason = ReasonWaypointIsNotReady
		c.Message = "Waypoint " + g.String() + " is not there. Connections to this service are refused until it is."
	}
	return c
}

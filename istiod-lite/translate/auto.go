package translate

import (
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// AutoWaypoint is the Gateway that stands for "auto" in a namespace: the control
// plane makes it when a service needs it.
const AutoWaypoint = "auto-waypoint"

// auto is the value of the label that asks for it.
const auto = "auto"

// AutoWaypoints are the Gateways that services need and that are made for them,
// sorted.
func (t *Translator) AutoWaypoints() []objects.Key {
	var out []objects.Key
	for k := range t.waypoints.autos {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b objects.Key) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// isAuto reports whether a service's waypoint was made for it as of late.
func (t *Translator) isAuto(k objects.Key) bool {
	return t.waypoints.names[objects.Ref{Kind: objects.KindService, Key: k}].Name == AutoWaypoint
}

// needsWaypoint reports whether something about a service is a waypoint's work:
// a route that it takes, or a policy that targets it.
func (t *Translator) needsWaypoint(k objects.Key) bool {
	return len(t.routesAt[k]) > 0 || len(t.screening.aimedAt[k]) > 0
}

// bindAuto finds whether a service passes the waypoint that is made for it. One
// that does not need it passes it only while it is ready: so nothing changes
// for a service when its last route goes, and nothing waits that need not.
func (t *Translator) bindAuto(k objects.Key, n naming) Binding {
	if t.needsWaypoint(k) {
		t.waypoints.autos.put(n.gateway, k)
		return t.bind(n, toServices, k.Namespace)
	}
	t.waypoints.autos.del(n.gateway, k)
	if b := t.bind(n, toServices, k.Namespace); b.Ready {
		return b
	}
	return Binding{}
}

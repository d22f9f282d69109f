package translate

import (
	"fmt"
	"strings"

	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// MeshController is whose GatewayClasses and XMeshes are this mesh's.
const MeshController = "istio.io/mesh-controller"

// KindListener is the kind of a Condition's Parent that is a Gateway's listener,
// by its SectionName.
const KindListener = "Listener"

// Detail is what the status of an object says beside its conditions.
type Detail struct {
	// Addresses are those of a Gateway: IP addresses, and hostnames.
	Addresses, Hostnames []string
	// Listeners are a Gateway's, by name. No route is attached to them: routes of
	// a mesh are attached to services.
	Listeners []string
	// Virtual are the addresses that a ServiceEntry's hosts are to have.
	Virtual []VirtualAddress
	// Features are those of a GatewayClass or an XMesh, sorted.
	Features []string
}

// Details are the details of all objects as of the last Update. The caller does
// not change them.
func (t *Translator) Details() map[objects.Ref]*Detail { return t.details.publish() }

// features are what this mesh does of the Gateway API, sorted as the API demands.
var features = []string{
	"GRPCRoute", "HTTPRoute",
	"HTTPRoute303RedirectStatusCode", "HTTPRoute307RedirectStatusCode", "HTTPRoute308RedirectStatusCode",
	"HTTPRouteParentRefPort", "HTTPRouteResponseHeaderModification",
	"Mesh", "MeshClusterIPMatching", "MeshConsumerRoute",
	"MeshHTTPRouteBackendRequestHeaderModification", "MeshHTTPRouteNamedRouteRule", "MeshHTTPRouteQueryParamMatching",
	"MeshHTTPRouteRedirectPath", "MeshHTTPRouteRedirectPort", "MeshHTTPRouteRewritePath", "MeshHTTPRouteSchemeRedirect",
}

// tellClass says of a GatewayClass that it is this mesh's.
func (t *Translator) tellClass(k objects.Key) {
	ref := objects.Ref{Kind: objects.KindGatewayClass, Key: k}
	c := t.seen.GatewayClasses[k]
	if c == nil || c.Spec.ControllerName != MeshController {
		t.tell(ref)
		t.details.del(ref)
		return
	}
	t.tell(ref, Condition{Object: ref, Generation: c.Generation, Type: TypeAccepted, Status: true, Reason: ReasonAccepted, Message: "Gateways of this class become waypoints of the ambit mesh."})
	t.details.put(ref, &Detail{Features: features})
}

// seeMesh says of an XMesh that it is this mesh.
func (t *Translator) seeMesh(k objects.Key, m *gatewayx.XMesh) {
	ref := objects.Ref{Kind: objects.KindXMesh, Key: k}
	if m == nil || m.Spec.ControllerName != MeshController {
		t.tell(ref)
		t.details.del(ref)
		return
	}
	c := Condition{
		Object: ref, Generation: m.Generation, Type: TypeAccepted, Status: true, Reason: ReasonAccepted,
		Message: fmt.Sprintf("The ambit mesh of cluster %s, trust domain %s, is this mesh.", t.seen.Mesh.ClusterID, t.seen.Mesh.TrustDomain),
	}
	if m.Spec.ParametersRef != nil {
		c.Status, c.Reason, c.Message = false, "InvalidParameters", "This mesh takes no parametersRef."
	}
	t.tell(ref, c)
	t.details.put(ref, &Detail{Features: features})
}

// tellGateway says how a waypoint stands.
func (t *Translator) tellGateway(k objects.Key) {
	ref := objects.Ref{Kind: objects.KindGateway, Key: k}
	g := t.seen.Gateways[k]
	if g == nil || !IsWaypoint(g, t.classOf(g)) {
		t.tell(ref)
		t.details.del(ref)
		return
	}
	s := gatewayStatus{ref: ref, gateway: g}
	accepted, programmed := s.accepted(), t.programmed(k, g)
	all := []Condition{accepted, programmed}
	detail := Detail{}
	for _, l := range g.Spec.Listeners {
		all = append(all, s.listener(l, programmed)...)
		detail.Listeners = append(detail.Listeners, string(l.Name))
	}
	if svc := t.seen.Services[k]; svc != nil && (programmed.Status || len(g.Status.Addresses) > 0) {
		for _, a := range clusterIPs(svc) {
			detail.Addresses = append(detail.Addresses, a.String())
		}
		detail.Hostnames = []string{serviceKey(t.seen.Mesh, k).Hostname}
	}
	t.tell(ref, all...)
	t.details.put(ref, &detail)
}

// gatewayStatus makes the conditions of one Gateway.
type gatewayStatus struct {
	ref     objects.Ref
	gateway *gateway.Gateway
}

func (s gatewayStatus) condition(typ string, status bool, reason, format string, args ...any) Condition {
	return Condition{Object: s.ref, Generation: s.gateway.Generation, Type: typ, Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func (s gatewayStatus) accepted() Condition {
	var wrong []string
	for _, l := range s.gateway.Spec.Listeners {
		if !isTunnel(l) {
			wrong = append(wrong, string(l.Name))
		}
	}
	name := s.gateway.Name
	switch {
	case len(name) > 63 || strings.Contains(name, ".") || name[0] >= '0' && name[0] <= '9':
		return s.condition(TypeAccepted, false, ReasonInvalid, "A waypoint's Service has the Gateway's name, and %q cannot be a Service's: at most 63 characters, without dots, beginning with a letter.", name)
	case name == "none":
		return s.condition(TypeAccepted, false, ReasonInvalid, "No label can name this waypoint: %q means that there is none.", name)
	case len(wrong) == len(s.gateway.Spec.Listeners):
		return s.condition(TypeAccepted, false, ReasonListenersNotValid, "No listener is a waypoint's: it needs port %d and protocol HBONE, which are served even so.", hbone.Port)
	case len(wrong) > 0:
		return s.condition(TypeAccepted, true, ReasonListenersNotValid, "Listeners %s have no effect: a waypoint has port %d and protocol HBONE only.", strings.Join(wrong, ", "), hbone.Port)
	}
	return s.condition(TypeAccepted, true, ReasonAccepted, "The Gateway is a waypoint.")
}

// programmed tells whether connections are served now.
func (t *Translator) programmed(k objects.Key, g *gateway.Gateway) Condition {
	s := gatewayStatus{ref: objects.Ref{Kind: objects.KindGateway, Key: k}, gateway: g}
	switch svc := t.seen.Services[k]; {
	case svc != nil && !managedWaypoint(svc.Labels):
		return s.condition(TypeProgrammed, false, ReasonInvalid, "Service %s is somebody else's: it has the waypoint's name and not its label, and is left alone.", k)
	case t.waypointReady(k):
		return s.condition(TypeProgrammed, true, TypeProgrammed, "The waypoint is ready.")
	case len(g.Status.Addresses) == 0:
		return s.condition(TypeProgrammed, false, ReasonAddressNotAssigned, "No pod of the waypoint has been ready yet (kubectl -n %s get pods -l %s=%s).", k.Namespace, labelGatewayName, k.Name)
	}
	return s.condition(TypeProgrammed, false, ReasonNoResources, "No pod of the waypoint is ready (kubectl -n %s get pods -l %s=%s).", k.Namespace, labelGatewayName, k.Name)
}

// listener makes the conditions of one listener.
func (s gatewayStatus) listener(l gateway.Listener, programmed Condition) []Condition {
	accepted := s.condition(TypeAccepted, true, ReasonAccepted, "The listener is the waypoint's tunnel.")
	switch {
	case l.Protocol != "HBONE":
		accepted = s.condition(TypeAccepted, false, ReasonUnsupportedProtocol, "Protocol %s: a waypoint's listener has port %d and protocol HBONE.", l.Protocol, hbone.Port)
	case l.Port != hbone.Port:
		accepted = s.condition(TypeAccepted, false, ReasonPortUnavailable, "Port %d: a waypoint's listener has port %d and protocol HBONE.", l.Port, hbone.Port)
	}
	if !accepted.Status {
		programmed = s.condition(TypeProgrammed, false, ReasonInvalid, "The listener is not accepted.")
	}
	out := []Condition{
		accepted, programmed,
		s.condition(TypeConflicted, false, ReasonNoConflicts, "Listeners of a waypoint do not conflict."),
		s.condition(TypeResolvedRefs, true, ReasonResolvedRefs, "The listener refers to nothing."),
	}
	for i := range out {
		out[i].Parent = Parent{Kind: KindListener, SectionName: string(l.Name)}
	}
	return out
}

package provision

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Names of the user's API.
const (
	// ClassName is the GatewayClass of waypoints.
	ClassName = "istio-waypoint"
	// Controller is whose classes these are.
	Controller = "istio.io/mesh-controller"
	// LabelManaged marks what was made here; nothing else is ever touched.
	LabelManaged = "gateway.istio.io/managed"
	// Managed is the value of LabelManaged.
	Managed = "istio.io-mesh-controller"
	// LabelGateway names an object's Gateway, LabelClass its class.
	LabelGateway = "gateway.networking.k8s.io/gateway-name"
	LabelClass   = "gateway.networking.k8s.io/gateway-class-name"
)

// Settings are what all waypoints of this mesh share.
type Settings struct {
	// Image is the waypoint's container image. Empty makes none.
	Image string
	// PullPolicy is IfNotPresent if empty.
	PullPolicy string
	// Namespace is where the control plane is.
	Namespace string
	// LogLevel is info if empty.
	LogLevel string
}

// Plan is what should be in the cluster.
type Plan struct {
	// Apply are kept as they are here, and removed once they are not.
	Apply []*unstructured.Unstructured
	// Create are made if they are missing, and then left to the user.
	Create []*unstructured.Unstructured
}

// Make plans for every Gateway of the class in the set.
func Make(s Settings, set *objects.Set) Plan {
	p := Plan{Create: claims(set)}
	if s.Image == "" {
		return p
	}
	for _, g := range set.Gateways {
		if IsWaypoint(set, g) && g.DeletionTimestamp == nil {
			p.Apply = append(p.Apply, waypoint{s, set.Mesh.WithDefaults(), g}.objects()...)
		}
	}
	slices.SortFunc(p.Apply, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetKind(), b.GetKind()))
	})
	return p
}

// Concerns reports whether a plan may depend on an object.
func Concerns(ref objects.Ref) bool {
	switch ref.Kind {
	case objects.KindGateway, objects.KindGatewayClass, objects.KindXMesh, objects.KindDefinition, objects.KindMesh:
		return true
	default:
		return false
	}
}

// IsWaypoint reports whether a Gateway is of the waypoints' class, or of one
// that names the same controller.
func IsWaypoint(set *objects.Set, g *gateway.Gateway) bool {
	if g.Spec.GatewayClassName == ClassName {
		return true
	}
	c := set.GatewayClasses[objects.Key{Name: string(g.Spec.GatewayClassName)}]
	return c != nil && c.Spec.ControllerName == Controller
}

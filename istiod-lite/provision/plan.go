package provision

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// Names of the user's API.
const (
	// ClassName is the GatewayClass of waypoints.
	ClassName = translate.WaypointClass
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
	// Idle are removed once they have been idle for a while.
	Idle []Idle
}

// Make plans for every Gateway of the class in the set. needed are the Gateways
// that services need and leave to the mesh.
func Make(s Settings, set *objects.Set, needed []objects.Key) Plan {
	p := Plan{Create: claims(set)}
	if s.Image == "" {
		return p
	}
	missing, idle := autoGateways(set, needed)
	p.Create, p.Idle = append(p.Create, missing...), idle
	for _, g := range set.Gateways {
		class := set.GatewayClasses[objects.Key{Name: string(g.Spec.GatewayClassName)}]
		if translate.IsWaypoint(g, class) && g.DeletionTimestamp == nil {
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

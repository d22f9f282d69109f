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
	// Hold are Gateways whose objects stay as they are, whatever they are, since
	// Problems says that it is not known what they should be.
	Hold     []objects.Key
	Problems map[objects.Key]string
	// Parameters are the ConfigMaps that Gateways name.
	Parameters []objects.Key
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
			p.add(waypoint{s, set.Mesh.WithDefaults(), g}, set)
		}
	}
	slices.SortFunc(p.Parameters, func(a, b objects.Key) int { return cmp.Compare(a.String(), b.String()) })
	p.Parameters = slices.Compact(p.Parameters)
	slices.SortFunc(p.Apply, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetKind(), b.GetKind()))
	})
	return p
}

// add plans one waypoint.
func (p *Plan) add(w waypoint, set *objects.Set) {
	k := objects.Key{Namespace: w.gateway.Namespace, Name: w.gateway.Name}
	if named, ok, _ := w.parameters(); ok {
		p.Parameters = append(p.Parameters, named)
	}
	all, err := w.objects(set)
	if err != nil {
		if p.Problems == nil {
			p.Problems = map[objects.Key]string{}
		}
		p.Problems[k] = err.Error()
		p.Hold = append(p.Hold, k)
		return
	}
	p.Apply = append(p.Apply, all...)
}

// Tell puts what is wrong with Gateways in the place of their being accepted.
func (p Plan) Tell(all []translate.Condition) []translate.Condition {
	if len(p.Problems) == 0 {
		return all
	}
	out := slices.Clone(all)
	for i, c := range out {
		if c.Object.Kind == objects.KindGateway && c.Type == translate.TypeAccepted && c.Parent == (translate.Parent{}) && p.Problems[c.Object.Key] != "" {
			out[i].Status, out[i].Reason = false, "InvalidParameters"
			out[i].Message = "The waypoint is left as it is: " + p.Problems[c.Object.Key] + "."
		}
	}
	return out
}

// Concerns reports whether a plan may depend on an object.
func Concerns(ref objects.Ref) bool {
	switch ref.Kind {
	case objects.KindGateway, objects.KindGatewayClass, objects.KindXMesh, objects.KindDefinition, objects.KindMesh, objects.KindConfigMap:
		return true
	default:
		return false
	}
}

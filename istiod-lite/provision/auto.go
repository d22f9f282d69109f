package provision

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// LabelAuto marks the Gateways that are made where services leave their waypoint
// to the mesh (label istio.io/use-waypoint: auto).
const LabelAuto = "ambit.io/auto-waypoint"

// Idle is a Gateway that was made for services which do not need it any more.
type Idle struct {
	Key objects.Key
	UID types.UID
}

// autoGateways are the needed ones that are missing, and those that nobody needs.
func autoGateways(set *objects.Set, needed []objects.Key) (missing []*unstructured.Unstructured, idle []Idle) {
	for _, k := range needed {
		if set.Gateways[k] == nil {
			missing = append(missing, encode(autoGateway(k)))
		}
	}
	for k, g := range set.Gateways {
		if g.Labels[LabelAuto] == "true" && g.DeletionTimestamp == nil && !slices.Contains(needed, k) {
			idle = append(idle, Idle{k, g.UID})
		}
	}
	return missing, idle
}

func autoGateway(k objects.Key) *gateway.Gateway {
	return &gateway.Gateway{
		TypeMeta:   metav1.TypeMeta{APIVersion: gateway.GroupVersion.String(), Kind: "Gateway"},
		ObjectMeta: metav1.ObjectMeta{Name: k.Name, Namespace: k.Namespace, Labels: map[string]string{LabelAuto: "true", "istio.io/waypoint-for": "service"}},
		Spec: gateway.GatewaySpec{
			GatewayClassName: ClassName,
			Listeners:        []gateway.Listener{{Name: "mesh", Port: hbone.Port, Protocol: "HBONE"}},
		},
	}
}

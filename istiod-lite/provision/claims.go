package provision

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// MeshName is the XMesh that stands for this mesh.
const MeshName = "ambit"

// The definitions whose objects the mesh brings itself.
const (
	definitionClass = "gatewayclasses.gateway.networking.k8s.io"
	definitionMesh  = "xmeshes.gateway.networking.x-k8s.io"
)

// claims are the class of waypoints and the mesh's own XMesh where they are
// defined and missing. Of one that exists nothing is changed but the status
// (GEP-3949).
func claims(set *objects.Set) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	if set.Definitions[objects.Key{Name: definitionClass}] != nil && set.GatewayClasses[objects.Key{Name: ClassName}] == nil {
		text := "Proxies for what the services of a namespace receive." // at most 64 bytes
		out = append(out, encode(&gateway.GatewayClass{
			TypeMeta:   metav1.TypeMeta{APIVersion: gateway.GroupVersion.String(), Kind: "GatewayClass"},
			ObjectMeta: metav1.ObjectMeta{Name: ClassName},
			Spec:       gateway.GatewayClassSpec{ControllerName: translate.MeshController, Description: &text},
		}))
	}
	if set.Definitions[objects.Key{Name: definitionMesh}] != nil && set.XMeshes[objects.Key{Name: MeshName}] == nil {
		out = append(out, encode(&gatewayx.XMesh{
			TypeMeta:   metav1.TypeMeta{APIVersion: gatewayx.GroupVersion.String(), Kind: "XMesh"},
			ObjectMeta: metav1.ObjectMeta{Name: MeshName},
			Spec:       gatewayx.MeshSpec{ControllerName: translate.MeshController},
		}))
	}
	return out
}

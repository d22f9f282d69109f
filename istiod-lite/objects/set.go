package objects

import (
	"fmt"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// Key names an object of one kind; Namespace is empty for the cluster's own.
type Key struct {
	Namespace, Name string
}

// String is "namespace/name", or "name" without a namespace.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// Kind is the kind of an object that a Set holds.
type Kind string

// The kinds. KindMesh stands for the mesh-wide settings; its key is zero.
const (
	KindPod                   Kind = "Pod"
	KindService               Kind = "Service"
	KindEndpointSlice         Kind = "EndpointSlice"
	KindNode                  Kind = "Node"
	KindNamespace             Kind = "Namespace"
	KindAuthorizationPolicy   Kind = "AuthorizationPolicy"
	KindPeerAuthentication    Kind = "PeerAuthentication"
	KindRequestAuthentication Kind = "RequestAuthentication"
	KindDestinationRule       Kind = "DestinationRule"
	KindServiceEntry          Kind = "ServiceEntry"
	KindGatewayClass          Kind = "GatewayClass"
	KindGateway               Kind = "Gateway"
	KindHTTPRoute             Kind = "HTTPRoute"
	KindGRPCRoute             Kind = "GRPCRoute"
	KindTLSRoute              Kind = "TLSRoute"
	KindTCPRoute              Kind = "TCPRoute"
	KindXMesh                 Kind = "XMesh"
	KindXBackendTrafficPolicy Kind = "XBackendTrafficPolicy"
	KindKeySet                Kind = "KeySet"
	KindConfigMap             Kind = "ConfigMap"
	KindDefinition            Kind = "CustomResourceDefinition"
	KindMesh                  Kind = "MeshConfig"
)

// Ref names one object of a Set.
type Ref struct {
	Kind Kind
	Key  Key
}

// String is "Kind namespace/name".
func (r Ref) String() string { return string(r.Kind) + " " + r.Key.String() }

// Set is the objects that the rules read. The zero value is empty and ready to
// be Put into, with the default mesh settings still to be filled by
// MeshConfig.WithDefaults. A Set belongs to one goroutine.
type Set struct {
	Pods                    map[Key]*corev1.Pod
	Services                map[Key]*corev1.Service
	EndpointSlices          map[Key]*discoveryv1.EndpointSlice
	Nodes                   map[Key]*corev1.Node
	Namespaces              map[Key]*corev1.Namespace
	AuthorizationPolicies   map[Key]*security.AuthorizationPolicy
	PeerAuthentications     map[Key]*security.PeerAuthentication
	RequestAuthentications  map[Key]*security.RequestAuthentication
	DestinationRules        map[Key]*networking.DestinationRule
	ServiceEntries          map[Key]*networking.ServiceEntry
	GatewayClasses          map[Key]*gateway.GatewayClass
	Gateways                map[Key]*gateway.Gateway
	HTTPRoutes              map[Key]*gateway.HTTPRoute
	GRPCRoutes              map[Key]*gateway.GRPCRoute
	TLSRoutes               map[Key]*gateway.TLSRoute
	TCPRoutes               map[Key]*gateway.TCPRoute
	XMeshes                 map[Key]*gatewayx.XMesh
	XBackendTrafficPolicies map[Key]*gatewayx.XBackendTrafficPolicy
	KeySets                 map[Key]*KeySet // by where they are fetched, as Name
	// ConfigMaps are those that say how waypoints are made.
	ConfigMaps map[Key]*corev1.ConfigMap
	// Definitions are the custom kinds that the cluster has, of those above.
	Definitions map[Key]*metav1.PartialObjectMetadata

	Mesh MeshConfig
}

// Put stores a pointer to an object of a known kind, in place of the one of
// the same name. It is an error to put any other type.
func (s *Set) Put(object any) (Ref, error) {
	if m, ok := object.(MeshConfig); ok {
		s.Mesh = m
		return Ref{Kind: KindMesh}, nil
	}
	for _, k := range kinds {
		if ref, ok := k.put(s, object); ok {
			return ref, nil
		}
	}
	return Ref{}, fmt.Errorf("putting a %T: not a kind that the mesh reads", object)
}

// Delete removes an object; one that is not there is no error. Mesh settings
// are never deleted.
func (s *Set) Delete(r Ref) {
	for _, k := range kinds {
		if k.kind == r.Kind {
			k.del(s, r.Key)
		}
	}
}

// Each visits every object, kind after kind and in no order within one.
func (s *Set) Each(visit func(Ref, any)) {
	for _, k := range kinds {
		k.each(s, visit)
	}
}

// RefOf names an object of a known kind.
func RefOf(object any) (Ref, bool) {
	for _, k := range kinds {
		if ref, ok := k.ref(object); ok {
			return ref, true
		}
	}
	return Ref{}, false
}

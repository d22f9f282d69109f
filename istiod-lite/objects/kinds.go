package objects

import (
	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// kind is what a Set can do with the objects of one kind.
type kind struct {
	kind    Kind
	cluster bool // its objects have no namespace
	// versions are the apiVersions it is read in.
	versions []string
	make     func() any
	ref      func(any) (Ref, bool)
	put      func(*Set, any) (Ref, bool)
	del      func(*Set, Key)
	each     func(*Set, func(Ref, any))
}

// object is a pointer to a Kubernetes object.
type object[T any] interface {
	*T
	metav1.Object
}

// of describes the kind whose objects are in a field of the Set.
func of[T any, P object[T]](k Kind, field func(*Set) *map[Key]P, versions ...string) kind {
	ref := func(o any) (Ref, bool) {
		p, ok := o.(P)
		if !ok {
			return Ref{}, false
		}
		return Ref{k, Key{p.GetNamespace(), p.GetName()}}, true
	}
	return kind{
		kind: k, versions: versions, ref: ref,
		make: func() any { return P(new(T)) },
		put: func(s *Set, o any) (Ref, bool) {
			r, ok := ref(o)
			if ok {
				m := field(s)
				if *m == nil {
					*m = map[Key]P{}
				}
				(*m)[r.Key] = o.(P)
			}
			return r, ok
		},
		del: func(s *Set, key Key) { delete(*field(s), key) },
		each: func(s *Set, visit func(Ref, any)) {
			for key, o := range *field(s) {
				visit(Ref{k, key}, o)
			}
		},
	}
}

// ofCluster describes a kind without namespaces.
func ofCluster[T any, P object[T]](k Kind, field func(*Set) *map[Key]P, versions ...string) kind {
	c := of(k, field, versions...)
	c.cluster = true
	return c
}

// The groups of the kinds, in the versions that are read alike.
var (
	inSecurity   = []string{"security.istio.io/v1", "security.istio.io/v1beta1"}
	inNetworking = []string{"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"}
)

const (
	inGateway      = "gateway.networking.k8s.io/v1"
	inGatewayBeta  = "gateway.networking.k8s.io/v1beta1"
	inExperimental = "gateway.networking.x-k8s.io/v1alpha1"
)

// kinds is everything that a Set holds. What depends on others is seen after
// them when all are visited: pods come last.
var kinds = []kind{
	ofCluster(KindNode, func(s *Set) *map[Key]*corev1.Node { return &s.Nodes }, "v1"),
	ofCluster(KindNamespace, func(s *Set) *map[Key]*corev1.Namespace { return &s.Namespaces }, "v1"),
	of(KindService, func(s *Set) *map[Key]*corev1.Service { return &s.Services }, "v1"),
	of(KindEndpointSlice, func(s *Set) *map[Key]*discoveryv1.EndpointSlice { return &s.EndpointSlices }, "discovery.k8s.io/v1"),
	of(KindAuthorizationPolicy, func(s *Set) *map[Key]*security.AuthorizationPolicy { return &s.AuthorizationPolicies }, inSecurity...),
	of(KindPeerAuthentication, func(s *Set) *map[Key]*security.PeerAuthentication { return &s.PeerAuthentications }, inSecurity...),
	of(KindRequestAuthentication, func(s *Set) *map[Key]*security.RequestAuthentication { return &s.RequestAuthentications }, inSecurity...),
	of(KindDestinationRule, func(s *Set) *map[Key]*networking.DestinationRule { return &s.DestinationRules }, inNetworking...),
	of(KindServiceEntry, func(s *Set) *map[Key]*networking.ServiceEntry { return &s.ServiceEntries }, inNetworking...),
	ofCluster(KindGatewayClass, func(s *Set) *map[Key]*gateway.GatewayClass { return &s.GatewayClasses }, inGateway, inGatewayBeta),
	of(KindGateway, func(s *Set) *map[Key]*gateway.Gateway { return &s.Gateways }, inGateway, inGatewayBeta),
	of(KindHTTPRoute, func(s *Set) *map[Key]*gateway.HTTPRoute { return &s.HTTPRoutes }, inGateway, inGatewayBeta),
	of(KindGRPCRoute, func(s *Set) *map[Key]*gateway.GRPCRoute { return &s.GRPCRoutes }, inGateway),
	of(KindTLSRoute, func(s *Set) *map[Key]*gateway.TLSRoute { return &s.TLSRoutes }, inGateway),
	of(KindTCPRoute, func(s *Set) *map[Key]*gateway.TCPRoute { return &s.TCPRoutes }, inGateway),
	ofCluster(KindXMesh, func(s *Set) *map[Key]*gatewayx.XMesh { return &s.XMeshes }, inExperimental),
	of(KindXBackendTrafficPolicy, func(s *Set) *map[Key]*gatewayx.XBackendTrafficPolicy { return &s.XBackendTrafficPolicies }, inExperimental),
	// Never read from a file: istiod-lite/jwks makes them.
	ofCluster(KindKeySet, func(s *Set) *map[Key]*KeySet { return &s.KeySets }),
	// Never read from a file: a file's objects speak for themselves.
	ofCluster(KindDefinition, func(s *Set) *map[Key]*metav1.PartialObjectMetadata { return &s.Definitions }),
	of(KindConfigMap, func(s *Set) *map[Key]*corev1.ConfigMap { return &s.ConfigMaps }, "v1"),
	of(KindPod, func(s *Set) *map[Key]*corev1.Pod { return &s.Pods }, "v1"),
}

// Reads reports whether a Set holds every object of a kind in this apiVersion.
// Of ConfigMaps it holds only those that Gateways name.
func Reads(apiVersion string, name Kind) bool {
	return name != KindConfigMap && read(apiVersion, name) != nil
}

// read finds the kind of a document, or nil.
func read(apiVersion string, name Kind) *kind {
	for i, k := range kinds {
		if k.kind != name {
			continue
		}
		for _, v := range k.versions {
			if v == apiVersion {
				return &kinds[i]
			}
		}
	}
	return nil
}

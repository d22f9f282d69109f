package objects

import (
	"fmt"

	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
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
	KindPod                 Kind = "Pod"
	KindService             Kind = "Service"
	KindEndpointSlice       Kind = "EndpointSlice"
	KindNode                Kind = "Node"
	KindNamespace           Kind = "Namespace"
	KindAuthorizationPolicy Kind = "AuthorizationPolicy"
	KindPeerAuthentication  Kind = "PeerAuthentication"
	KindMesh                Kind = "MeshConfig"
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
	Pods                  map[Key]*corev1.Pod
	Services              map[Key]*corev1.Service
	EndpointSlices        map[Key]*discoveryv1.EndpointSlice
	Nodes                 map[Key]*corev1.Node
	Namespaces            map[Key]*corev1.Namespace
	AuthorizationPolicies map[Key]*security.AuthorizationPolicy
	PeerAuthentications   map[Key]*security.PeerAuthentication

	Mesh MeshConfig
}

// Put stores a pointer to an object of a known kind, in place of the one of
// the same name. It is an error to put any other type.
func (s *Set) Put(object any) (Ref, error) {
	switch o := object.(type) {
	case *corev1.Pod:
		return put(&s.Pods, KindPod, Key{o.Namespace, o.Name}, o), nil
	case *corev1.Service:
		return put(&s.Services, KindService, Key{o.Namespace, o.Name}, o), nil
	case *discoveryv1.EndpointSlice:
		return put(&s.EndpointSlices, KindEndpointSlice, Key{o.Namespace, o.Name}, o), nil
	case *corev1.Node:
		return put(&s.Nodes, KindNode, Key{Name: o.Name}, o), nil
	case *corev1.Namespace:
		return put(&s.Namespaces, KindNamespace, Key{Name: o.Name}, o), nil
	case *security.AuthorizationPolicy:
		return put(&s.AuthorizationPolicies, KindAuthorizationPolicy, Key{o.Namespace, o.Name}, o), nil
	case *security.PeerAuthentication:
		return put(&s.PeerAuthentications, KindPeerAuthentication, Key{o.Namespace, o.Name}, o), nil
	case MeshConfig:
		s.Mesh = o
		return Ref{Kind: KindMesh}, nil
	}
	return Ref{}, fmt.Errorf("putting a %T: not a kind that the mesh reads", object)
}

// Delete removes an object; one that is not there is no error. Mesh settings
// are never deleted.
func (s *Set) Delete(r Ref) {
	switch r.Kind {
	case KindPod:
		delete(s.Pods, r.Key)
	case KindService:
		delete(s.Services, r.Key)
	case KindEndpointSlice:
		delete(s.EndpointSlices, r.Key)
	case KindNode:
		delete(s.Nodes, r.Key)
	case KindNamespace:
		delete(s.Namespaces, r.Key)
	case KindAuthorizationPolicy:
		delete(s.AuthorizationPolicies, r.Key)
	case KindPeerAuthentication:
		delete(s.PeerAuthentications, r.Key)
	case KindMesh:
	}
}

func put[T any](m *map[Key]T, kind Kind, k Key, o T) Ref {
	if *m == nil {
		*m = map[Key]T{}
	}
	(*m)[k] = o
	return Ref{kind, k}
}

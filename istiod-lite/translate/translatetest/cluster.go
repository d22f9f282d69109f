// Package translatetest makes objects for tests and benchmarks of the control
// plane: clusters of a given size that look like real ones, and changes to
// them. It refuses randomness of its own: equal arguments, equal objects.
package translatetest

import (
	"fmt"
	"maps"
	"net/netip"

	apisec "istio.io/api/security/v1beta1"
	typev1 "istio.io/api/type/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// How a Cluster is divided.
const (
	podsPerService   = 10
	podsPerNamespace = 200
	podsPerNode      = 50
)

// Cluster is a cluster of enrolled, ready pods: ten to a service with its
// endpoint slice, two hundred to a namespace, fifty to a node in three zones,
// a policy by selector in every tenth service, one for the namespace in every
// namespace, and STRICT in every second.
func Cluster(pods int) objects.Set {
	s := objects.Set{Mesh: objects.MeshConfig{}.WithDefaults()}
	put := func(o any) {
		if _, err := s.Put(o); err != nil {
			panic(err) // a bug of this package
		}
	}
	for i := 0; i < pods; i += podsPerNode {
		put(node(i / podsPerNode))
	}
	for i := 0; i < pods; i += podsPerNamespace {
		put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(i)}})
		put(allowWithin(namespace(i)))
		if i/podsPerNamespace%2 == 1 {
			put(strict(namespace(i)))
		}
	}
	for i := 0; i < pods; i += podsPerService {
		put(service(i))
		put(slice(i, min(podsPerService, pods-i)))
		if i/podsPerService%10 == 0 {
			put(denyPort(i))
		}
	}
	for i := range pods {
		put(Pod(i))
	}
	return s
}

// PodKey names pod i.
func PodKey(i int) objects.Key {
	return objects.Key{Namespace: namespace(i), Name: fmt.Sprintf("%s-7d4b9c6f5-%05d", app(i), i)}
}

// ToggleReady replaces pod i of the set by one of the other readiness.
func ToggleReady(s *objects.Set, i int) objects.Ref {
	pod := s.Pods[PodKey(i)].DeepCopy()
	c := &pod.Status.Conditions[0]
	if c.Status == corev1.ConditionTrue {
		c.Status = corev1.ConditionFalse
	} else {
		c.Status = corev1.ConditionTrue
	}
	ref, err := s.Put(pod)
	if err != nil {
		panic(err) // a bug of this package
	}
	return ref
}

func namespace(i int) string { return fmt.Sprintf("ns-%03d", i/podsPerNamespace) }
func app(i int) string       { return fmt.Sprintf("app-%05d", i/podsPerService) }
func nodeName(n int) string  { return fmt.Sprintf("node-%04d", n) }

func meta(ns, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name, Labels: maps.Clone(labels)}
}

func address(first byte, i int) string {
	return netip.AddrFrom4([4]byte{10, first + byte(i>>16), byte(i >> 8), byte(i)}).String()
}

func node(n int) *corev1.Node {
	return &corev1.Node{ObjectMeta: meta("", nodeName(n), map[string]string{
		corev1.LabelTopologyRegion: "region", corev1.LabelTopologyZone: fmt.Sprint("zone-", n%3),
	})}
}

// Pod is pod i of a Cluster.
func Pod(i int) *corev1.Pod {
	k := PodKey(i)
	yes := true
	p := &corev1.Pod{ObjectMeta: meta(k.Namespace, k.Name, map[string]string{
		"app": app(i), "version": fmt.Sprint("v", i%2+1), "pod-template-hash": "7d4b9c6f5",
	})}
	p.Annotations = map[string]string{"ambient.istio.io/redirection": "enabled"}
	p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: app(i) + "-7d4b9c6f5", Controller: &yes}}
	p.Spec = corev1.PodSpec{
		NodeName: nodeName(i / podsPerNode), ServiceAccountName: app(i),
		Containers: []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}},
	}
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: address(100, i)}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	return p
}

func service(i int) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: meta(namespace(i), app(i), nil),
		Spec: corev1.ServiceSpec{
			ClusterIPs: []string{address(200, i)}, Selector: map[string]string{"app": app(i)},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}
}

func slice(i, pods int) *discoveryv1.EndpointSlice {
	name, port, yes := "http", int32(8080), true
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  meta(namespace(i), app(i)+"-x", map[string]string{discoveryv1.LabelServiceName: app(i)}),
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	for j := i; j < i+pods; j++ {
		k := PodKey(j)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address(100, j)}, Conditions: discoveryv1.EndpointConditions{Ready: &yes},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: k.Namespace, Name: k.Name},
		})
	}
	return s
}

func allowWithin(ns string) *security.AuthorizationPolicy {
	ap := &security.AuthorizationPolicy{ObjectMeta: meta(ns, "within", nil)}
	ap.Spec.Rules = []*apisec.Rule{{From: []*apisec.Rule_From{{Source: &apisec.Source{Namespaces: []string{ns}}}}}}
	return ap
}

func denyPort(i int) *security.AuthorizationPolicy {
	ap := &security.AuthorizationPolicy{ObjectMeta: meta(namespace(i), "deny-"+app(i), nil)}
	ap.Spec.Selector = &typev1.WorkloadSelector{MatchLabels: map[string]string{"app": app(i)}}
	ap.Spec.Action = apisec.AuthorizationPolicy_DENY
	ap.Spec.Rules = []*apisec.Rule{{To: []*apisec.Rule_To{{Operation: &apisec.Operation{Ports: []string{"9999"}}}}}}
	return ap
}

func strict(ns string) *security.PeerAuthentication {
	pa := &security.PeerAuthentication{ObjectMeta: meta(ns, "strict", nil)}
	pa.Spec.Mtls = &apisec.PeerAuthentication_MutualTLS{Mode: apisec.PeerAuthentication_MutualTLS_STRICT}
	return pa
}

// AddRoutes adds n HTTPRoutes with two rules to the services of a Cluster of
// some pods, in turn, and a waypoint that serves them.
func AddRoutes(s *objects.Set, pods, n int) {
	services := pods / podsPerService
	for i := range n {
		putRoute(s, services, i, 90)
	}
	for k := range s.Namespaces {
		ns := s.Namespaces[k].DeepCopy()
		ns.Labels = map[string]string{"istio.io/use-waypoint": "wp"}
		s.Namespaces[k] = ns
		wp := service(0)
		wp.ObjectMeta = meta(ns.Name, "wp", map[string]string{"gateway.istio.io/managed": "istio.io-mesh-controller"})
		wp.Spec.Selector = map[string]string{"gateway.networking.k8s.io/gateway-name": "wp"}
		s.Services[objects.Key{Namespace: ns.Name, Name: "wp"}] = wp
	}
}

// ShiftRoute replaces route i, of a set that AddRoutes filled, by one of
// another weight.
func ShiftRoute(s *objects.Set, pods, i int) objects.Ref {
	weight := int32(50)
	services := pods / podsPerService
	if old := s.HTTPRoutes[routeKey(services, i)]; *old.Spec.Rules[1].BackendRefs[0].Weight == weight {
		weight = 90
	}
	return putRoute(s, services, i, weight)
}

func routeKey(services, i int) objects.Key {
	at := i % services * podsPerService
	return objects.Key{Namespace: namespace(at), Name: fmt.Sprintf("route-%05d", i)}
}

func putRoute(s *objects.Set, services, i int, weight int32) objects.Ref {
	to := func(at int, weight int32) gateway.HTTPBackendRef {
		port := gateway.PortNumber(80)
		var b gateway.HTTPBackendRef
		b.Name, b.Port, b.Weight = gateway.ObjectName(app(at)), &port, &weight
		return b
	}
	at, k := i%services*podsPerService, routeKey(services, i)
	group, kind := gateway.Group(""), gateway.Kind("Service")
	path, method := fmt.Sprint("/api/", i), gateway.HTTPMethodGet
	r := &gateway.HTTPRoute{ObjectMeta: meta(k.Namespace, k.Name, nil)}
	r.Generation = int64(weight)
	r.Spec.ParentRefs = []gateway.ParentReference{{Group: &group, Kind: &kind, Name: gateway.ObjectName(app(at))}}
	r.Spec.Rules = []gateway.HTTPRouteRule{
		{Matches: []gateway.HTTPRouteMatch{{Path: &gateway.HTTPPathMatch{Value: &path}, Method: &method}}, BackendRefs: []gateway.HTTPBackendRef{to(at, 1)}},
		{Matches: []gateway.HTTPRouteMatch{{Path: &gateway.HTTPPathMatch{Value: &path}}}, BackendRefs: []gateway.HTTPBackendRef{to(at, weight), to(at, 100-weight)}},
	}
	ref, err := s.Put(r)
	if err != nil {
		panic(err) // a bug of this package
	}
	return ref
}

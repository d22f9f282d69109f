package kube

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lastApplied is kubectl's copy of the whole object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// strip drops what no rule reads, before an object is kept: of a pod that is
// most of it. What many objects have alike they share.
func (s *stripper) strip(object any) (any, error) {
	m, err := meta.Accessor(object)
	if err != nil {
		return object, nil // a tombstone; it passes through
	}
	m.SetManagedFields(nil)
	if a := m.GetAnnotations(); a[lastApplied] != "" {
		delete(a, lastApplied)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch o := object.(type) {
	case *corev1.Pod:
		s.stripPod(o)
	case *corev1.Node:
		o.Spec = corev1.NodeSpec{}
		o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses}
		o.Annotations = nil
	case *corev1.Namespace:
		o.Spec = corev1.NamespaceSpec{}
	case *discoveryv1.EndpointSlice:
		s.stripSlice(o)
	}
	return object, nil
}

func (s *stripper) stripPod(p *corev1.Pod) {
	maps.DeleteFunc(p.Annotations, func(k, _ string) bool { return !ofTheMesh(k) })
	p.Namespace, p.GenerateName = s.text(p.Namespace), ""
	p.Annotations, p.Labels = s.texts(p.Annotations), s.texts(p.Labels)
	p.OwnerReferences = s.owners(p.OwnerReferences)
	p.Spec = corev1.PodSpec{
		NodeName:           s.text(p.Spec.NodeName),
		ServiceAccountName: s.text(p.Spec.ServiceAccountName),
		HostNetwork:        p.Spec.HostNetwork,
		Hostname:           p.Spec.Hostname,
		Subdomain:          p.Spec.Subdomain,
		Containers:         s.containers(p.Spec.Containers),
		InitContainers:     s.containers(p.Spec.InitContainers),
	}
	ips := make([]corev1.PodIP, 0, len(p.Status.PodIPs))
	for _, ip := range p.Status.PodIPs {
		ips = append(ips, corev1.PodIP{IP: same(ip.IP, p.Status.PodIP)})
	}
	p.Status = corev1.PodStatus{
		Phase:      corev1.PodPhase(s.text(string(p.Status.Phase))),
		HostIP:     s.text(p.Status.HostIP),
		PodIP:      p.Status.PodIP,
		PodIPs:     ips,
		Conditions: readiness(p.Status.Conditions),
	}
}

// ofTheMesh reports whether an annotation is of Istio's API or of ours.
func ofTheMesh(annotation string) bool {
	domain, _, _ := strings.Cut(annotation, "/")
	return strings.HasSuffix(domain, "istio.io") || strings.HasPrefix(domain, "ambit.")
}

// same gives a for a text that equals it, so that one of the two can go.
func same(text, a string) string {
	if text == a {
		return a
	}
	return text
}

// The only condition of a pod that a rule reads, one for all pods.
var (
	isReady  = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	notReady = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
)

func readiness(all []corev1.PodCondition) []corev1.PodCondition {
	for i := range all {
		switch {
		case all[i].Type != corev1.PodReady:
		case all[i].Status == corev1.ConditionTrue:
			return isReady
		default:
			return notReady
		}
	}
	return nil
}

// stripSlice keeps of an endpoint where it is, whom it stands for and whether
// it is ready.
func (s *stripper) stripSlice(e *discoveryv1.EndpointSlice) {
	e.GenerateName, e.Annotations, e.Namespace = "", nil, s.text(e.Namespace)
	e.OwnerReferences = nil
	out := make([]discoveryv1.Endpoint, len(e.Endpoints))
	for i := range e.Endpoints {
		from := &e.Endpoints[i]
		to := &out[i]
		*to = discoveryv1.Endpoint{
			Addresses: from.Addresses, NodeName: s.pointer(from.NodeName), Zone: s.pointer(from.Zone), Hostname: from.Hostname,
			Conditions: discoveryv1.EndpointConditions{
				Ready: truth(from.Conditions.Ready), Serving: truth(from.Conditions.Serving), Terminating: truth(from.Conditions.Terminating),
			},
		}
		if ref := from.TargetRef; ref != nil {
			to.TargetRef = &corev1.ObjectReference{Kind: s.text(ref.Kind), Namespace: s.text(ref.Namespace), Name: ref.Name}
		}
	}
	e.Endpoints = out
}

// truths are the two values of booleans that endpoints point to.
var truths = [2]bool{false, true}

func truth(b *bool) *bool {
	switch {
	case b == nil:
		return nil
	case *b:
		return &truths[1]
	}
	return &truths[0]
}

// owners keeps what telemetry shows.
func (s *stripper) owners(all []metav1.OwnerReference) []metav1.OwnerReference {
	var out []metav1.OwnerReference
	for _, o := range all {
		out = append(out, metav1.OwnerReference{Kind: o.Kind, Name: o.Name, Controller: truth(o.Controller)})
	}
	return s.ownersOf.of(textOf(out), out)
}

// containers keeps the ports that a service can name.
func (s *stripper) containers(cs []corev1.Container) []corev1.Container {
	out := make([]corev1.Container, 0, len(cs))
	for _, c := range cs {
		out = append(out, corev1.Container{Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy})
	}
	return s.containersOf.of(textOf(out), out)
}

package kube

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// lastApplied is kubectl's copy of the whole object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// strip drops what no rule reads, before an object is kept: of a pod that is
// most of it.
func strip(object any) (any, error) {
	m, err := meta.Accessor(object)
	if err != nil {
		return object, nil // a tombstone; it passes through
	}
	m.SetManagedFields(nil)
	if a := m.GetAnnotations(); a[lastApplied] != "" {
		delete(a, lastApplied)
	}
	switch o := object.(type) {
	case *corev1.Pod:
		stripPod(o)
	case *corev1.Node:
		o.Spec = corev1.NodeSpec{}
		o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses}
		o.Annotations = nil
	case *corev1.Namespace:
		o.Spec = corev1.NamespaceSpec{}
	}
	return object, nil
}

func stripPod(p *corev1.Pod) {
	p.Spec = corev1.PodSpec{
		NodeName:           p.Spec.NodeName,
		ServiceAccountName: p.Spec.ServiceAccountName,
		HostNetwork:        p.Spec.HostNetwork,
		Hostname:           p.Spec.Hostname,
		Subdomain:          p.Spec.Subdomain,
		Containers:         stripContainers(p.Spec.Containers),
		InitContainers:     stripContainers(p.Spec.InitContainers),
	}
	p.Status = corev1.PodStatus{
		Phase:      p.Status.Phase,
		HostIP:     p.Status.HostIP,
		PodIP:      p.Status.PodIP,
		PodIPs:     p.Status.PodIPs,
		Conditions: p.Status.Conditions,
	}
}

func stripContainers(cs []corev1.Container) []corev1.Container {
	out := make([]corev1.Container, 0, len(cs))
	for _, c := range cs {
		out = append(out, corev1.Container{Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy})
	}
	return out
}

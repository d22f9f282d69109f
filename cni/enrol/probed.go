package enrol

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Probed are the ports of the pod's own addresses that the kubelet calls: those
// of http, tcp and grpc probes and of lifecycle hooks, sorted. Probes of other
// hosts and exec probes need no exemption.
func Probed(pod *corev1.Pod) []uint16 {
	var ports []uint16
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			ports = append(ports, probedOf(pod, &containers[i])...)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

func probedOf(pod *corev1.Pod, c *corev1.Container) (ports []uint16) {
	add := func(host string, port intstr.IntOrString) {
		if n := resolve(c, port); n != 0 && ownHost(pod, host) {
			ports = append(ports, n)
		}
	}
	handler := func(http *corev1.HTTPGetAction, tcp *corev1.TCPSocketAction) {
		if http != nil {
			add(http.Host, http.Port)
		}
		if tcp != nil {
			add(tcp.Host, tcp.Port)
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p == nil {
			continue
		}
		handler(p.HTTPGet, p.TCPSocket)
		if p.GRPC != nil {
			add("", intstr.FromInt32(p.GRPC.Port))
		}
	}
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil {
				handler(h.HTTPGet, h.TCPSocket)
			}
		}
	}
	return ports
}

// resolve turns a number or the name of one of the container's ports into a
// port; 0 if there is none.
func resolve(c *corev1.Container, port intstr.IntOrString) uint16 {
	n := port.IntVal
	if port.Type == intstr.String {
		n = 0
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				n = p.ContainerPort
			}
		}
	}
	if n < 1 || n > 65535 {
		return 0
	}
	return uint16(n)
}

// ownHost reports whether a probe's host is the pod: the default, or one of its
// addresses written out.
func ownHost(pod *corev1.Pod, host string) bool {
	return host == "" || host == pod.Status.PodIP ||
		slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return ip.IP == host })
}

package enrol

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// DNSAnnotation on a pod says whether its DNS queries are captured, whatever the
// agent's own setting is.
const DNSAnnotation = "ambient.istio.io/dns-capture"

// DNS decides whether an enrolled pod's DNS queries go to ztunnel: by its
// annotation, else as otherwise says. A pod that serves DNS itself is left alone
// unless it asks: ztunnel might ask that very pod, and so on in a circle.
func DNS(pod *corev1.Pod, otherwise bool) bool {
	if said, err := strconv.ParseBool(pod.Annotations[DNSAnnotation]); err == nil {
		return said
	}
	return otherwise && !servesDNS(pod)
}

func servesDNS(pod *corev1.Pod) bool {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.ContainerPort == 53 {
				return true
			}
		}
	}
	return false
}

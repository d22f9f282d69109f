// Package enrol owns the rules of who belongs to the mesh: from a pod and its
// namespace to a decision with its reason, and from a pod to the ports that the
// kubelet probes.
//
// It refuses effects: it neither watches nor writes. cni/agent calls it.
package enrol

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// What users write and what the agent answers (controlplane spec 1.1, 1.2).
const (
	// ModeLabel on a pod or namespace is "ambient" or "none".
	ModeLabel = "istio.io/dataplane-mode"
	// SidecarAnnotation is on pods that have a proxy of their own.
	SidecarAnnotation = "sidecar.istio.io/status"
	// BypassAnnotation "true" leaves a pod's inbound plaintext alone.
	BypassAnnotation = "ambient.istio.io/bypass-inbound-capture"
	// RedirectionAnnotation is the agent's answer; istiod tells peers to use
	// HBONE by it.
	RedirectionAnnotation = "ambient.istio.io/redirection"
)

// The values of RedirectionAnnotation.
const (
	// Enabled means that rules are in place and ztunnel serves the pod.
	Enabled = "enabled"
	// Pending means that the pod is of the mesh but no ztunnel serves it yet.
	Pending = "pending"
)

// Decision says whether a pod belongs to the mesh.
type Decision struct {
	Enrol bool
	// Reason is for logs: what decided.
	Reason string
	// BypassInbound is the pod's wish, if it is enrolled.
	BypassInbound bool
	// Datagrams says that its UDP is the mesh's too, if it is enrolled.
	Datagrams bool
}

// Decide judges one pod. Namespaces in exclude are never enrolled.
func Decide(pod *corev1.Pod, namespace *corev1.Namespace, exclude []string) Decision {
	if reason := never(pod, exclude); reason != "" {
		return Decision{Reason: reason}
	}
	mode, from := pod.Labels[ModeLabel], "pod label"
	if mode == "" {
		mode, from = namespace.Labels[ModeLabel], "namespace label"
	}
	switch mode {
	case "ambient":
		bypass, _ := strconv.ParseBool(pod.Annotations[BypassAnnotation])
		return Decision{Enrol: true, Reason: from, BypassInbound: bypass, Datagrams: mesh.Datagrams(pod.Labels, namespace.Labels)}
	case "":
		return Decision{Reason: "no " + ModeLabel + " label"}
	}
	return Decision{Reason: from + " is " + strconv.Quote(mode)}
}

// never says why a pod cannot be of the mesh whatever its labels.
func never(pod *corev1.Pod, exclude []string) string {
	switch {
	case pod.Spec.HostNetwork:
		return "host network"
	case slices.Contains(exclude, pod.Namespace):
		return "namespace is excluded"
	case hasSidecar(pod):
		return "has a sidecar"
	case Ended(pod):
		return "has ended"
	}
	return ""
}

func hasSidecar(pod *corev1.Pod) bool {
	_, has := pod.Annotations[SidecarAnnotation]
	return has
}

// Ended reports whether the pod's containers have stopped for good.
func Ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

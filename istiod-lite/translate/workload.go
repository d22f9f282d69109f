package translate

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Labels and annotations of the user's API that are read here.
const (
	annotationRedirection = "ambient.istio.io/redirection"
	labelTunnel           = "networking.istio.io/tunnel"
	labelSubzone          = "topology.istio.io/subzone"
	// labelTransport, on a pod or its namespace, is over what its tunnels are made.
	labelTransport = "ambit.io/tunnel-transport"
)

// podUID is a pod's resource name.
func podUID(cluster string, k objects.Key) string {
	return cluster + "//Pod/" + k.Namespace + "/" + k.Name
}

// podWorkload makes a pod's workload, without its services and policies; nil
// for a pod that has ended or has no address yet.
func podWorkload(m objects.MeshConfig, pod *corev1.Pod, at mesh.Locality) *mesh.Workload {
	addresses := podAddresses(pod)
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || len(addresses) == 0 {
		return nil
	}
	w := &mesh.Workload{
		UID:            podUID(m.ClusterID, objects.Key{Namespace: pod.Namespace, Name: pod.Name}),
		Name:           pod.Name,
		Namespace:      pod.Namespace,
		TrustDomain:    m.TrustDomain,
		ServiceAccount: pod.Spec.ServiceAccountName,
		Addresses:      addresses,
		Network:        m.Network,
		Node:           pod.Spec.NodeName,
		ClusterID:      m.ClusterID,
		Locality:       at,
		Unhealthy:      !ready(pod),
		Capacity:       1,
		Settings:       settingsOf(m),
	}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default"
	}
	if slices.Contains(strings.Split(pod.Labels[labelTunnel], ","), "http") {
		w.NativeTunnel, w.Tunnel = true, mesh.TunnelHBONE
	}
	if pod.Spec.HostNetwork {
		w.NetworkMode = mesh.NetworkHost
	} else if pod.Annotations[annotationRedirection] == "enabled" {
		w.Tunnel = mesh.TunnelHBONE
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain != "" {
		w.Settings.Hostname, w.Settings.Subdomain = pod.Spec.Hostname, pod.Spec.Subdomain
	}
	w.OwnerName, w.Type = owner(pod)
	w.CanonicalName = firstOf(pod.Labels["service.istio.io/canonical-name"], pod.Labels["app.kubernetes.io/name"], pod.Labels["app"], w.OwnerName)
	w.CanonicalRevision = firstOf(pod.Labels["service.istio.io/canonical-revision"], pod.Labels["app.kubernetes.io/version"], pod.Labels["version"], "latest")
	return w
}

// settingsOf are the settings of every pod's proxy.
func settingsOf(m objects.MeshConfig) mesh.WorkloadSettings {
	aliases := slices.DeleteFunc(slices.Clone(m.TrustDomainAliases), func(alias string) bool {
		return alias == "" || alias == m.TrustDomain
	})
	return mesh.WorkloadSettings{RegistryOnly: m.RegistryOnly, TrustDomainAliases: aliases}
}

// transportOf is what the pod says, or else its namespace, or else the mesh. What
// is no transport says nothing.
func transportOf(m objects.MeshConfig, namespace *corev1.Namespace, pod *corev1.Pod) mesh.Transport {
	for _, labels := range []map[string]string{pod.Labels, labelsOf(namespace)} {
		if t, ok := mesh.ParseTransport(labels[labelTransport]); ok {
			return t
		}
	}
	return m.Transport
}

func podAddresses(pod *corev1.Pod) []netip.Addr {
	texts := make([]string, 0, 2)
	for _, ip := range pod.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	if len(texts) == 0 {
		texts = append(texts, pod.Status.PodIP)
	}
	var out []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	return out
}

// ready is whether a pod should get new connections.
func ready(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// owner is the name and kind of what made the pod, as telemetry shows it.
func owner(pod *corev1.Pod) (string, mesh.WorkloadType) {
	name, kind := pod.Name, mesh.WorkloadPod
	for _, ref := range pod.OwnerReferences {
		if ref.Controller == nil || !*ref.Controller {
			continue
		}
		switch ref.Kind {
		case "ReplicaSet":
			if of, ok := strings.CutSuffix(ref.Name, "-"+pod.Labels["pod-template-hash"]); ok {
				name, kind = of, mesh.WorkloadDeployment
			}
		case "Job":
			name, kind = ref.Name, mesh.WorkloadJob
			if of, ok := cronJob(ref.Name); ok {
				name, kind = of, mesh.WorkloadCronJob
			}
		}
	}
	return firstOf(pod.Labels["service.istio.io/workload-name"], name), kind
}

// cronJob recognises the jobs of a CronJob: its name and the minute they were
// due, in minutes since 1970.
func cronJob(job string) (string, bool) {
	i := strings.LastIndexByte(job, '-')
	if i < 1 || len(job)-i-1 < 8 || len(job)-i-1 > 10 {
		return "", false
	}
	return job[:i], strings.Trim(job[i+1:], "0123456789") == ""
}

// localityOf reads a node's labels.
func localityOf(node *corev1.Node) mesh.Locality {
	if node == nil {
		return mesh.Locality{}
	}
	return mesh.Locality{
		Region:  node.Labels[corev1.LabelTopologyRegion],
		Zone:    node.Labels[corev1.LabelTopologyZone],
		Subzone: node.Labels[labelSubzone],
	}
}

func firstOf(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return s
		}
	}
	return ""
}

package doctor

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

// The labels by which the parts are found.
const (
	istiodLabel   = "app=istiod"
	agentLabel    = "k8s-app=istio-cni-node"
	ztunnelLabel  = "app=ztunnel"
	waypointLabel = "gateway.istio.io/managed=istio.io-mesh-controller"
)

// Presence is how a part is that every node has.
type Presence struct {
	// Pod is its pod, empty for none.
	Pod   string
	Ready bool
	// Says is why it is not ready, as far as Kubernetes knows.
	Says string
}

// presences are the pods with a label, by node. While one replaces another, the
// one that is ready counts.
func presences(ctx context.Context, c *reach.Cluster, label string) (map[string]Presence, error) {
	list, err := c.Client.CoreV1().Pods(manifests.Namespace).List(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	out := map[string]Presence{}
	for i := range list.Items {
		p := &list.Items[i]
		if p.DeletionTimestamp == nil && !out[p.Spec.NodeName].Ready {
			out[p.Spec.NodeName] = presence(p)
		}
	}
	return out, nil
}

func presence(p *corev1.Pod) Presence {
	out := Presence{Pod: p.Name, Says: string(p.Status.Phase)}
	for _, s := range p.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil && w.Reason != "" {
			out.Says = w.Reason
		}
	}
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady {
			out.Ready = cond.Status == corev1.ConditionTrue
		}
	}
	return out
}

// judgeCoverage wants an agent and a ztunnel on every node.
func judgeCoverage(f Facts) []Finding {
	var all []Finding
	for _, n := range f.Nodes {
		if n.OS != "linux" || !n.Ready {
			continue // said already
		}
		all = append(all, judgePresence(n.Name, "node agent", "istio-cni-node", n.Agent, "new pods of the node wait for it")...)
		all = append(all, judgePresence(n.Name, "ztunnel", "ztunnel", n.Ztunnel, "what the node's captured pods send and get is refused")...)
	}
	return all
}

func judgePresence(node, part, set string, p Presence, meaning string) []Finding {
	check := part + " on " + node
	switch {
	case p.Pod == "":
		return []Finding{{Fail, check, "none runs there: " + meaning, fmt.Sprintf("look why DaemonSet %s leaves the node out (nodeSelector, affinity, quota): kubectl -n %s describe daemonset %s", set, manifests.Namespace, set)}}
	case !p.Ready:
		return []Finding{{Fail, check, fmt.Sprintf("%s is not ready (%s): %s", p.Pod, p.Says, meaning), fmt.Sprintf("kubectl -n %s describe pod %s; kubectl -n %[1]s logs %[2]s", manifests.Namespace, p.Pod)}}
	}
	return nil
}

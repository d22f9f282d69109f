package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/ambit/reach"
)

// Stuck is a pod that the plugin holds back.
type Stuck struct {
	Pod, Node string
	Since     time.Time
	// Says is the plugin's reason.
	Says string
}

// pluginType is how the runtime names our plugin when it fails.
const pluginType = `"ambit-cni"`

// gatherStuck finds the pods that wait, and what the plugin said last of each.
func gatherStuck(ctx context.Context, c *reach.Cluster, f *Facts) error {
	pods, err := c.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Pending"})
	if err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	if len(pods.Items) == 0 {
		return nil
	}
	events, err := c.Client.CoreV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedCreatePodSandBox"})
	if err != nil {
		return fmt.Errorf("listing events: %w", err)
	}
	for i := range pods.Items {
		if s, held := stuck(&pods.Items[i], events.Items); held {
			f.Stuck = append(f.Stuck, s)
		}
	}
	return nil
}

// stuck is the pod as the plugin holds it, by the newest event that says so.
func stuck(p *corev1.Pod, events []corev1.Event) (Stuck, bool) {
	ours := slices.DeleteFunc(slices.Clone(events), func(e corev1.Event) bool {
		return e.InvolvedObject.UID != p.UID || !strings.Contains(e.Message, pluginType)
	})
	if len(ours) == 0 || p.Status.PodIP != "" {
		return Stuck{}, false
	}
	newest := slices.MaxFunc(ours, func(a, b corev1.Event) int { return at(&a).Compare(at(&b)) })
	_, says, _ := strings.Cut(newest.Message, pluginType)
	says = strings.TrimPrefix(strings.TrimSpace(says), "failed (add): ")
	return Stuck{p.Namespace + "/" + p.Name, p.Spec.NodeName, p.CreationTimestamp.Time, says}, true
}

// at is when an event came last, in whichever form it was written.
func at(e *corev1.Event) time.Time {
	latest := cmp.Or(e.LastTimestamp.Time, e.EventTime.Time, e.CreationTimestamp.Time)
	if e.Series != nil && e.Series.LastObservedTime.After(latest) {
		return e.Series.LastObservedTime.Time
	}
	return latest
}

// judgeStuck tells of pods that may not start, by the plugin's word or by the
// agent's.
func judgeStuck(f Facts) []Finding {
	var all []Finding
	told := map[string]bool{}
	tell := func(pod, node, says string, since time.Time) {
		if told[pod] {
			return
		}
		told[pod] = true
		all = append(all, Finding{Fail, "pod " + pod, fmt.Sprintf("waits for the node agent on %s for %s: %s", node, f.ago(since), says), "nothing starts outside the mesh by mistake: bring the node agent and ztunnel of the node back (kubectl -n istio-system get pods -o wide); the runtime then tries again by itself"})
	}
	for _, a := range f.Agents {
		for _, w := range a.Waiting {
			if a.Now.Sub(w.Last) < time.Minute { // otherwise it has given up or gone
				tell(w.Pod, a.Heard.Node, w.Reason, w.Since)
			}
		}
	}
	for _, s := range f.Stuck {
		tell(s.Pod, s.Node, s.Says, s.Since)
	}
	return all
}

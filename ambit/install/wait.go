package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

// pollEvery is how often a condition is looked at. Waiting by watch would save
// little and would have to survive broken watches.
const pollEvery = 300 * time.Millisecond

// part is one workload of the installation.
type part struct {
	name  string
	label string
	// state says in words what is still missing; empty is done.
	state func(context.Context, *reach.Cluster) (string, error)
}

func parts() []part {
	return []part{
		{"istiod", "app=istiod", deployment("istiod")},
		{"istio-cni-node", "k8s-app=istio-cni-node", daemonSet("istio-cni-node")},
		{"ztunnel", "app=ztunnel", daemonSet("ztunnel")},
	}
}

// WaitReady returns when every part is rolled out and ready. When ctx ends
// first, the error says which pod waits for what.
func WaitReady(ctx context.Context, c *reach.Cluster, progress io.Writer) error {
	for _, p := range parts() {
		var missing string
		err := until(ctx, func() (bool, error) {
			state, err := p.state(ctx, c)
			missing = state
			return state == "" && err == nil, err
		})
		if err != nil {
			// ctx is over; looking for the cause must still be possible.
			look, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return fmt.Errorf("%s is not ready (%s): %w%s", p.name, missing, err, explain(look, c, p.label))
		}
		fmt.Fprintf(progress, "ready   %s\n", p.name)
	}
	return nil
}

// until polls until done; errors of the last attempt are told when ctx ends.
func until(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

func deployment(name string) func(context.Context, *reach.Cluster) (string, error) {
	return func(ctx context.Context, c *reach.Cluster) (string, error) {
		d, err := c.Client.AppsV1().Deployments(manifests.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "not found", err
		}
		return deploymentState(d), nil
	}
}

func deploymentState(d *appsv1.Deployment) string {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	s := d.Status
	switch {
	case s.ObservedGeneration < d.Generation:
		return "the change is not seen yet"
	case s.UpdatedReplicas < want || s.AvailableReplicas < want:
		return fmt.Sprintf("%d of %d replicas are ready", min(s.UpdatedReplicas, s.AvailableReplicas), want)
	case s.Replicas > want:
		return "the old replica still runs"
	}
	return ""
}

func daemonSet(name string) func(context.Context, *reach.Cluster) (string, error) {
	return func(ctx context.Context, c *reach.Cluster) (string, error) {
		d, err := c.Client.AppsV1().DaemonSets(manifests.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "not found", err
		}
		return daemonSetState(d), nil
	}
}

func daemonSetState(d *appsv1.DaemonSet) string {
	s := d.Status
	switch {
	case s.ObservedGeneration < d.Generation:
		return "the change is not seen yet"
	case s.DesiredNumberScheduled == 0:
		return "there is no node for it yet"
	case s.UpdatedNumberScheduled < s.DesiredNumberScheduled || s.NumberAvailable < s.DesiredNumberScheduled:
		return fmt.Sprintf("%d of %d nodes are ready", min(s.UpdatedNumberScheduled, s.NumberAvailable), s.DesiredNumberScheduled)
	}
	return ""
}

// explain says of each pod with the label that is not ready why that is.
func explain(ctx context.Context, c *reach.Cluster, label string) string {
	pods, err := c.Client.CoreV1().Pods(manifests.Namespace).List(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, p := range pods.Items {
		reasons := podReasons(&p)
		if len(reasons) == 0 {
			continue
		}
		if event := lastWarning(ctx, c, &p); event != "" {
			reasons = append(reasons, event)
		}
		fmt.Fprintf(&b, "\n  pod %s on %s: %s", p.Name, p.Spec.NodeName, strings.Join(reasons, "; "))
	}
	return b.String()
}

func podReasons(p *corev1.Pod) []string {
	var reasons []string
	for _, cs := range p.Status.ContainerStatuses {
		switch {
		case cs.Ready:
		case cs.State.Waiting != nil:
			reasons = append(reasons, strings.TrimSuffix(cs.State.Waiting.Reason+": "+cs.State.Waiting.Message, ": "))
		case cs.State.Terminated != nil:
			reasons = append(reasons, fmt.Sprintf("exited with %d %s", cs.State.Terminated.ExitCode, cs.State.Terminated.Message))
		default:
			reasons = append(reasons, "running but not ready")
		}
	}
	if len(p.Status.ContainerStatuses) == 0 {
		for _, cond := range p.Status.Conditions {
			if cond.Type == corev1.PodScheduled && cond.Status == corev1.ConditionFalse {
				reasons = append(reasons, cond.Message)
			}
		}
		if len(reasons) == 0 {
			reasons = append(reasons, string(p.Status.Phase))
		}
	}
	return reasons
}

func lastWarning(ctx context.Context, c *reach.Cluster, p *corev1.Pod) string {
	list, err := c.Client.CoreV1().Events(p.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(p.UID) + ",type=Warning",
	})
	if err != nil || len(list.Items) == 0 {
		return ""
	}
	last := list.Items[0]
	for _, e := range list.Items {
		if e.LastTimestamp.After(last.LastTimestamp.Time) {
			last = e
		}
	}
	return last.Reason + ": " + last.Message
}

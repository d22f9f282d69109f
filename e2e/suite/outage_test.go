//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/ambit/install"
	"github.com/ambit-mesh/ambit/e2e/stage"
	"github.com/ambit-mesh/ambit/manifests"
)

// TestWithoutIstiodEverythingKnownKeepsWorking: no replica of istiod for a long
// time. Connections old and new, policies, identities hold; and what changed
// meanwhile is applied afterwards.
func TestWithoutIstiodEverythingKnownKeepsWorking(t *testing.T) {
	away := Lasts(2*time.Minute, 30*time.Minute)
	HoldFor(t, mesh, away, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "denied", Node: 1}); err != nil {
			return err
		}
		deny := sc.authz("not-denied", "  action: DENY\n  rules: [{from: [{source: {principals: ["+Principal(sc.NS, "denied")+"]}}]}]\n")
		if err := sc.Apply(ctx, deny); err != nil {
			return err
		}
		refused := func(ctx context.Context) error {
			return sc.Fails(ctx, "denied", "get", "--timeout", "3s", url(hosts[0], httpPort))
		}
		if err := Soon(ctx, refused); err != nil {
			return err
		}
		sc.Undo(func(ctx context.Context) error { return sc.scaleIstiod(ctx, 1) })
		if err := sc.scaleIstiod(ctx, 0); err != nil {
			return err
		}
		lasts := away.String()
		held := sc.Begin(ctx, "client", "hold", "--duration", lasts, address(hosts[0], tcpPort))
		load := sc.Begin(ctx, "client", "load", "--rate", "100", "--duration", lasts, url(hosts[0], httpPort))
		if err := sc.Delete(ctx, deny); err != nil {
			return err
		}
		s, err := load.End()
		if err := errors.Join(err, AllOK(s), held.EndOK()); err != nil {
			return fmt.Errorf("without istiod: %w", err)
		}
		sc.Figure("istiod away", "%s, %d of %d new connections failed, one connection held throughout", away, s.Failed, s.Attempts)
		// That the policy is gone is not known without istiod: nothing opens.
		if err := refused(ctx); err != nil {
			return fmt.Errorf("without istiod: %w", err)
		}
		if err := sc.scaleIstiod(ctx, 1); err != nil {
			return err
		}
		// Nobody waits longer for it because it was away long: a new identity has
		// its certificate soon.
		if err := sc.Start(ctx, Pod{Name: "late", Node: 1}); err != nil {
			return err
		}
		if err := Soon(ctx, func(ctx context.Context) error {
			return sc.Works(ctx, "late", "get", "--timeout", "3s", url(hosts[0], httpPort))
		}); err != nil {
			return fmt.Errorf("a new pod after the outage: %w", err)
		}
		return Soon(ctx, func(ctx context.Context) error {
			return sc.Works(ctx, "denied", "get", "--timeout", "3s", url(hosts[0], httpPort))
		})
	})
}

func (sc *Scene) scaleIstiod(ctx context.Context, replicas int) error {
	return sc.scale(ctx, manifests.Namespace, "istiod", replicas)
}

// scale waits until as many pods of a Deployment are ready, and no more exist.
func (sc *Scene) scale(ctx context.Context, namespace, name string, replicas int) error {
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	d, err := sc.Reach.Client.AppsV1().Deployments(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return err
	}
	selector := metav1.FormatLabelSelector(d.Spec.Selector)
	return stage.Within(ctx, time.Minute, func(ctx context.Context) error {
		// Those that are going still answer: sc.Pods would leave them out.
		pods, err := sc.Reach.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range pods.Items {
			if stage.Ready(&p) {
				ready++
			}
		}
		if ready != replicas || len(pods.Items) != replicas {
			return fmt.Errorf("%d of %d pods of %s are ready, want %d", ready, len(pods.Items), name, replicas)
		}
		return nil
	})
}

// TestWhileTheNodeAgentIsAwayPodsWait outside of the excluded namespaces, and
// an event says why; what runs goes on.
func TestWhileTheNodeAgentIsAwayPodsWait(t *testing.T) {
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		outside, err := sc.Another(ctx, "out", false)
		if err != nil {
			return err
		}
		if err := sc.agentAway(ctx); err != nil {
			return err
		}
		late, unrelated := Pod{Name: "late", Node: 1}, Pod{Name: "unrelated", Namespace: outside, Node: 1}
		if err := errors.Join(sc.Create(ctx, late), sc.Create(ctx, unrelated)); err != nil {
			return err
		}
		for _, p := range []string{sc.NS + "/late", outside + "/unrelated"} {
			if err := Soon(ctx, func(ctx context.Context) error { return sc.waitsForAgent(ctx, p) }); err != nil {
				return err
			}
		}
		if err := sc.Works(ctx, "client", "get", "--count", "10", url(hosts[0], httpPort)); err != nil {
			return fmt.Errorf("while the agent is away: %w", err)
		}
		if err := sc.agentBack(ctx); err != nil {
			return err
		}
		if err := errors.Join(sc.BecomesReady(ctx, sc.NS, "late"), sc.BecomesReady(ctx, outside, "unrelated")); err != nil {
			return err
		}
		return sc.encryptedBetween(ctx, "late", "server")
	})
}

// waitsForAgent is an error unless a pod has not started and an event of it
// names the node agent.
func (sc *Scene) waitsForAgent(ctx context.Context, pod string) error {
	ns, name, _ := strings.Cut(pod, "/")
	p, err := sc.Stage.Pod(ctx, ns, name)
	if err != nil {
		return err
	}
	if p.Status.Phase != corev1.PodPending {
		return fmt.Errorf("pod %s is %s", pod, p.Status.Phase)
	}
	events, err := sc.Reach.Client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(p.UID)})
	if err != nil {
		return err
	}
	for _, e := range events.Items {
		if e.Reason == "FailedCreatePodSandBox" && strings.Contains(e.Message, "ambit") && strings.Contains(e.Message, "agent") {
			return nil
		}
	}
	return fmt.Errorf("none of the %d events of pod %s names the node agent", len(events.Items), pod)
}

const nowhere = `{"spec":{"template":{"spec":{"nodeSelector":{"ambit.dev/nowhere":"true"}}}}}`

// agentAway makes every node agent leave, as if it had crashed for long.
func (sc *Scene) agentAway(ctx context.Context) error {
	ds := sc.Reach.Client.AppsV1().DaemonSets(manifests.Namespace)
	if _, err := ds.Patch(ctx, "istio-cni-node", types.MergePatchType, []byte(nowhere), metav1.PatchOptions{}); err != nil {
		return err
	}
	sc.Undo(sc.agentBack)
	return stage.Within(ctx, time.Minute, func(ctx context.Context) error {
		pods, err := sc.Reach.Client.CoreV1().Pods(manifests.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "k8s-app=istio-cni-node"})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d agents are left", len(pods.Items))
		}
		return err
	})
}

func (sc *Scene) agentBack(ctx context.Context) error {
	ds := sc.Reach.Client.AppsV1().DaemonSets(manifests.Namespace)
	patch := []byte(`{"spec":{"template":{"spec":{"nodeSelector":null}}}}`)
	if _, err := ds.Patch(ctx, "istio-cni-node", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return install.WaitReady(ctx, sc.Reach, discard{})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// TestAfterARebootPodsAreCapturedBeforeTheirFirstPacket: a node loses power; a
// pod on it that talks from its first moment on never does so in clear.
func TestAfterARebootPodsAreCapturedBeforeTheirFirstPacket(t *testing.T) {
	c := onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, true); err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "server", Node: 1}); err != nil {
			return err
		}
		host, _, err := sc.IPs(ctx, "server")
		if err != nil {
			return err
		}
		marker := "REBOOT-" + sc.NS
		talker := Pod{Name: "talker", Node: 2, Args: []string{"load", "--rate", "50", "--timeout", "2s", "--expect", "any", url(host, httpPort) + marker}}
		if err := sc.Start(ctx, talker); err != nil {
			return err
		}
		if err := sc.talks(ctx, time.Now()); err != nil {
			return err
		}
		node, err := sc.Node(ctx, 2)
		if err != nil {
			return err
		}
		// On the whole bridge: the node's own port goes when the node does.
		stop, err := sc.Listen(ctx, "", marker)
		if err != nil {
			return err
		}
		sc.Cuts()
		err = c.NodeReboot(ctx, node)
		booted := time.Now()
		if err == nil {
			err = sc.BecomesReady(ctx, sc.NS, "talker")
		}
		if err == nil {
			err = sc.talks(ctx, booted)
		}
		wire, stopErr := stop()
		if err := errors.Join(err, stopErr); err != nil {
			return err
		}
		if wire.Marked > 0 {
			return fmt.Errorf("%d of %d frames showed the marker in clear", wire.Marked, wire.Frames)
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		return install.WaitReady(ctx, sc.Reach, discard{})
	})
}

// talks waits until the talker's calls since a time are recorded as encrypted.
func (sc *Scene) talks(ctx context.Context, since time.Time) error {
	return stage.Within(ctx, 90*time.Second, func(ctx context.Context) error {
		records, err := sc.AccessLog(ctx, since)
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.Direction == "inbound" && r.SourceIdentity == Identity(sc.NS, "talker") && r.Error == "" {
				return nil
			}
		}
		return fmt.Errorf("no call of the talker is recorded among %d", len(records))
	})
}

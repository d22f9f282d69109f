package install

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

const (
	agentName      = "istio-cni-node"
	cleanupLabel   = "ambit.dev/cleanup"
	rootCertName   = "istio-ca-root-cert"
	revokedName    = "istio-ca-crl"
	rootCertLabel  = "istio.io/config=true"
	crdGroup       = "apiextensions.k8s.io"
	cleanupCommand = "uninstall"
)

// Uninstall takes the mesh out: first every node releases its pods and removes
// our files, while the proxies still serve; then everything else goes. CRDs
// stay, and with them the users' policies, unless purge is set; those of the
// Gateway API that somebody else installed stay in any case.
func Uninstall(ctx context.Context, c *reach.Cluster, objs []*unstructured.Unstructured, purge bool, progress io.Writer) error {
	if err := cleanNodes(ctx, c, progress); err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(objs), func(o *unstructured.Unstructured) bool {
		return o.GroupVersionKind().Group == crdGroup && !purge
	})
	rest, err := keepForeign(ctx, c, rest)
	if err != nil {
		return err
	}
	if err := Delete(ctx, c, rest, progress); err != nil {
		return err
	}
	// Only then the root certificates: as long as it lives, istiod puts them back.
	// The same goes for waypoints.
	if err := waitGone(ctx, c, progress); err != nil {
		return err
	}
	if err := deleteWaypoints(ctx, c.Dynamic, progress); err != nil {
		return err
	}
	return deleteRootCerts(ctx, c)
}

// cleanNodes replaces the node agent by one pod a node that undoes its work,
// and returns when all of them have succeeded.
func cleanNodes(ctx context.Context, c *reach.Cluster, progress io.Writer) error {
	agent, err := c.Client.AppsV1().DaemonSets(manifests.Namespace).Get(ctx, agentName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		fmt.Fprintln(progress, "the node agent is not installed; nodes are not touched")
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for the node agent: %w", err)
	}
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	if err := stopAgent(ctx, c); err != nil {
		return err
	}
	pods := c.Client.CoreV1().Pods(manifests.Namespace)
	for _, n := range nodes.Items {
		pod := cleanupPod(agent, n.Name)
		if _, err := pods.Create(ctx, pod, metav1.CreateOptions{FieldManager: fieldManager}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("cleaning node %s: %w", n.Name, err)
		}
	}
	return waitCleaned(ctx, c, nodes.Items, progress)
}

// stopAgent ends the agents and waits, so that none undoes the clean-up.
func stopAgent(ctx context.Context, c *reach.Cluster) error {
	foreground := metav1.DeletePropagationForeground
	ds := c.Client.AppsV1().DaemonSets(manifests.Namespace)
	if err := ds.Delete(ctx, agentName, metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("stopping the node agent: %w", err)
	}
	err := until(ctx, func() (bool, error) {
		pods, err := c.Client.CoreV1().Pods(manifests.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "k8s-app=" + agentName})
		return err == nil && len(pods.Items) == 0, err
	})
	if err != nil {
		return fmt.Errorf("waiting for the node agents to end: %w", err)
	}
	return nil
}

// cleanupPod is the agent's pod, made to undo its work on one node and end.
func cleanupPod(agent *appsv1.DaemonSet, node string) *corev1.Pod {
	spec := agent.Spec.Template.Spec.DeepCopy()
	spec.NodeName = node // no scheduler in between: a tainted or cordoned node is cleaned too
	spec.RestartPolicy = corev1.RestartPolicyOnFailure
	for i := range spec.Containers {
		ct := &spec.Containers[i]
		ct.Args = []string{cleanupCommand}
		ct.ReadinessProbe, ct.LivenessProbe, ct.StartupProbe = nil, nil, nil
	}
	sum := fnv.New32a()
	sum.Write([]byte(node))
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:      fmt.Sprintf("ambit-uninstall-%08x", sum.Sum32()),
			Namespace: manifests.Namespace,
			Labels:    map[string]string{cleanupLabel: "true", "app.kubernetes.io/part-of": "ambit", "istio.io/dataplane-mode": "none"},
		},
		Spec: *spec,
	}
}

func waitCleaned(ctx context.Context, c *reach.Cluster, nodes []corev1.Node, progress io.Writer) error {
	reported := map[string]bool{}
	pods := c.Client.CoreV1().Pods(manifests.Namespace)
	err := until(ctx, func() (bool, error) {
		list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: cleanupLabel + "=true"})
		if err != nil {
			return false, err
		}
		for _, p := range list.Items {
			if p.Status.Phase == corev1.PodSucceeded && !reported[p.Spec.NodeName] {
				reported[p.Spec.NodeName] = true
				fmt.Fprintf(progress, "cleaned node %s\n", p.Spec.NodeName)
			}
		}
		return len(reported) >= len(nodes), nil
	})
	if err != nil {
		return fmt.Errorf("%w: not cleaned: %s%s", err, strings.Join(missingNodes(nodes, reported), ", "), explainDetached(ctx, c))
	}
	return nil
}

func explainDetached(ctx context.Context, c *reach.Cluster) string {
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*pollEvery*10)
	defer cancel()
	return explain(look, c, cleanupLabel+"=true")
}

func missingNodes(nodes []corev1.Node, done map[string]bool) []string {
	var missing []string
	for _, n := range nodes {
		if !done[n.Name] {
			missing = append(missing, n.Name)
		}
	}
	return missing
}

// deleteRootCerts removes what istiod published to every namespace.
func deleteRootCerts(ctx context.Context, c *reach.Cluster) error {
	list, err := c.Client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{LabelSelector: rootCertLabel})
	if err != nil {
		return fmt.Errorf("listing root certificates: %w", err)
	}
	var errs []error
	for _, cm := range list.Items {
		if cm.Name != rootCertName && cm.Name != revokedName {
			continue
		}
		if err := c.Client.CoreV1().ConfigMaps(cm.Namespace).Delete(ctx, cm.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("deleting the root certificate of %s: %w", cm.Namespace, err))
		}
	}
	return errors.Join(errs...)
}

// waitGone returns when the namespace has gone, and with it every pod.
func waitGone(ctx context.Context, c *reach.Cluster, progress io.Writer) error {
	err := until(ctx, func() (bool, error) {
		_, err := c.Client.CoreV1().Namespaces().Get(ctx, manifests.Namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		return fmt.Errorf("waiting for namespace %s to go: %w", manifests.Namespace, err)
	}
	fmt.Fprintf(progress, "gone    namespace %s\n", manifests.Namespace)
	return nil
}

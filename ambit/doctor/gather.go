package doctor

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

const (
	modeLabel       = "istio.io/dataplane-mode"
	modeAmbient     = "ambient"
	modeNone        = "none"
	redirection     = "ambient.istio.io/redirection"
	sidecarStatus   = "sidecar.istio.io/status"
	rootCertificate = "istio-ca-root-cert"
	partOf          = "app.kubernetes.io/part-of"
)

var policyKinds = map[string]schema.GroupVersionResource{
	"AuthorizationPolicy": {Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"},
	"PeerAuthentication":  {Group: "security.istio.io", Version: "v1", Resource: "peerauthentications"},
}

// Gather reads the facts from a cluster. What the user may not read is an
// error, because a check that looks away proves nothing.
func Gather(ctx context.Context, c *reach.Cluster) (Facts, error) {
	var f Facts
	version, err := c.Client.Discovery().ServerVersion()
	if err != nil {
		return f, fmt.Errorf("reaching the API server: %w", err)
	}
	f.ServerVersion = version.GitVersion
	for _, step := range []func(context.Context, *reach.Cluster, *Facts) error{
		gatherNodes, gatherParts, gatherNamespaces, gatherPolicies, gatherWaypoints,
	} {
		if err := step(ctx, c, &f); err != nil {
			return f, err
		}
	}
	return f, nil
}

func gatherNodes(ctx context.Context, c *reach.Cluster, f *Facts) error {
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	for _, n := range nodes.Items {
		info := n.Status.NodeInfo
		node := Node{Name: n.Name, Kernel: info.KernelVersion, OS: info.OperatingSystem, Runtime: info.ContainerRuntimeVersion}
		for _, cond := range n.Status.Conditions {
			if cond.Type == corev1.NodeReady {
				node.Ready = cond.Status == corev1.ConditionTrue
			}
		}
		f.Nodes = append(f.Nodes, node)
	}
	return nil
}

func gatherParts(ctx context.Context, c *reach.Cluster, f *Facts) error {
	istiod, ztunnel, agent := Part{Name: "istiod"}, Part{Name: "ztunnel"}, Part{Name: "istio-cni-node"}
	d, err := c.Client.AppsV1().Deployments(manifests.Namespace).Get(ctx, istiod.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("looking at istiod: %w", err)
	default:
		istiod.Want, istiod.Ready = int(d.Status.Replicas), int(d.Status.ReadyReplicas)
		if d.Spec.Replicas != nil {
			istiod.Want = int(*d.Spec.Replicas)
		}
		istiod.Images = images(d.Spec.Template.Spec)
		f.foreign(d.Labels, "Deployment istiod")
	}
	for _, p := range []*Part{&ztunnel, &agent} {
		ds, err := c.Client.AppsV1().DaemonSets(manifests.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return fmt.Errorf("looking at %s: %w", p.Name, err)
		}
		p.Want, p.Ready = int(ds.Status.DesiredNumberScheduled), int(ds.Status.NumberReady)
		p.Images = images(ds.Spec.Template.Spec)
		f.foreign(ds.Labels, "DaemonSet "+p.Name)
	}
	f.Parts = []Part{istiod, agent, ztunnel}
	return nil
}

// foreign notes a part that carries a name of ours and not our label.
func (f *Facts) foreign(labels map[string]string, what string) {
	if labels[partOf] != "ambit" {
		f.Foreign = append(f.Foreign, what)
	}
}

func images(spec corev1.PodSpec) []string {
	var out []string
	for _, c := range spec.Containers {
		out = append(out, c.Image)
	}
	return out
}

func gatherNamespaces(ctx context.Context, c *reach.Cluster, f *Facts) error {
	list, err := c.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: modeLabel + "=" + modeAmbient})
	if err != nil {
		return fmt.Errorf("listing namespaces: %w", err)
	}
	for _, ns := range list.Items {
		n := Namespace{Name: ns.Name}
		_, err := c.Client.CoreV1().ConfigMaps(ns.Name).Get(ctx, rootCertificate, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("looking for the root certificate in %s: %w", ns.Name, err)
		}
		n.HasRootCert = err == nil
		pods, err := c.Client.CoreV1().Pods(ns.Name).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("listing pods of %s: %w", ns.Name, err)
		}
		for _, p := range pods.Items {
			n.count(&p)
		}
		policies, err := c.Client.NetworkingV1().NetworkPolicies(ns.Name).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("listing network policies of %s: %w", ns.Name, err)
		}
		for _, np := range policies.Items {
			if blocksTunnel(&np) {
				n.Blocking = append(n.Blocking, np.Name)
			}
		}
		f.Namespaces = append(f.Namespaces, n)
	}
	return nil
}

// count sorts one running pod of an enrolled namespace.
func (n *Namespace) count(p *corev1.Pod) {
	_, sidecar := p.Annotations[sidecarStatus]
	switch {
	case p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil:
	case p.Labels[modeLabel] == modeNone || sidecar:
	case p.Spec.HostNetwork:
		n.HostNetwork = append(n.HostNetwork, p.Name)
	case p.Annotations[redirection] == "enabled":
		n.Pods++
		n.Enrolled++
	default:
		n.Pods++
		n.Left = append(n.Left, p.Name)
	}
}

// blocksTunnel is true for an ingress policy all of whose rules list ports and
// none of which lists the tunnel's.
func blocksTunnel(np *networkingv1.NetworkPolicy) bool {
	if len(np.Spec.Ingress) == 0 {
		return false // it closes everything on purpose, or is about egress
	}
	for _, rule := range np.Spec.Ingress {
		if len(rule.Ports) == 0 {
			return false
		}
		for _, p := range rule.Ports {
			low := p.Port
			if low == nil || low.IntValue() == 15008 || p.EndPort != nil && low.IntValue() <= 15008 && *p.EndPort >= 15008 {
				return false
			}
		}
	}
	return true
}

func gatherPolicies(ctx context.Context, c *reach.Cluster, f *Facts) error {
	f.CRDs = map[string]bool{}
	for kind, gvr := range policyKinds {
		list, err := c.Dynamic.Resource(gvr).List(ctx, metav1.ListOptions{})
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			f.CRDs[kind] = false
			continue
		}
		if err != nil {
			return fmt.Errorf("listing %s: %w", gvr.Resource, err)
		}
		f.CRDs[kind] = true
		for _, obj := range list.Items {
			f.Policies = append(f.Policies, conditions(&obj)...)
		}
	}
	return nil
}

// conditions are the conditions of an object that are not true.
func conditions(obj *unstructured.Unstructured) []PolicyStatus {
	list, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	var out []PolicyStatus
	for _, item := range list {
		cond, ok := item.(map[string]any)
		if !ok || cond["status"] == "True" {
			continue
		}
		message, _ := cond["message"].(string)
		kind, _ := cond["type"].(string)
		out = append(out, PolicyStatus{obj.GetNamespace(), obj.GetName(), kind, strings.TrimSpace(message)})
	}
	return out
}

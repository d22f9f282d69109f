package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/health"
)

// Namespace is one namespace whose pods belong to the mesh.
type Namespace struct {
	Name        string
	HasRootCert bool
	// Roots are those that its ConfigMap tells.
	Roots []health.Root
	// Enrolled of the Pods are captured; Left are the names of those that
	// should be and are not, HostNetwork of those that cannot be.
	Pods, Enrolled    int
	Left, HostNetwork []string
	// Blocking are network policies that admit only listed ports without 15008.
	Blocking []string
}

func judgeNamespaces(f Facts) []Finding {
	var all []Finding
	for _, n := range f.Namespaces {
		check := "namespace " + n.Name
		if !n.HasRootCert {
			all = append(all, Finding{Warn, check, "has no ConfigMap istio-ca-root-cert", "istiod writes it; see its log"})
		}
		for _, np := range n.Blocking {
			all = append(all, Finding{Warn, check, "NetworkPolicy " + np + " admits ports without 15008", "encrypted connections arrive on 15008; admit it from the mesh's pods"})
		}
		if len(n.Left) > 0 {
			all = append(all, Finding{Fail, check, fmt.Sprintf("%d of %d pods captured; not: %s", n.Enrolled, n.Pods, shorten(n.Left)), "kubectl -n istio-system logs -l k8s-app=istio-cni-node"})
		} else {
			all = append(all, Finding{Level: OK, Check: check, Detail: fmt.Sprintf("%d of %d pods captured", n.Enrolled, n.Pods)})
		}
		if len(n.HostNetwork) > 0 {
			all = append(all, Finding{Warn, check, "pods on the host network are never captured: " + shorten(n.HostNetwork), "their traffic stays in clear and has no identity"})
		}
	}
	return all
}

func gatherNamespaces(ctx context.Context, c *reach.Cluster, f *Facts) error {
	list, err := c.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: modeLabel + "=" + modeAmbient})
	if err != nil {
		return fmt.Errorf("listing namespaces: %w", err)
	}
	for _, ns := range list.Items {
		n := Namespace{Name: ns.Name}
		published, err := c.Client.CoreV1().ConfigMaps(ns.Name).Get(ctx, rootCertificate, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("looking for the root certificate in %s: %w", ns.Name, err)
		}
		if n.HasRootCert = err == nil; n.HasRootCert {
			n.Roots, _ = health.RootsOf([]byte(published.Data["root-cert.pem"]))
		}
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

// forgetEnded drops what was read of namespaces that are being deleted or are
// gone by now: their waypoints and pods go one by one, which is no fault.
func forgetEnded(ctx context.Context, c *reach.Cluster, f *Facts) error {
	list, err := c.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing namespaces: %w", err)
	}
	lives := map[string]bool{}
	for i := range list.Items {
		lives[list.Items[i].Name] = list.Items[i].DeletionTimestamp == nil
	}
	f.keepOf(lives)
	return nil
}

// keepOf drops what was read of namespaces that do not live.
func (f *Facts) keepOf(lives map[string]bool) {
	f.Namespaces = slices.DeleteFunc(f.Namespaces, func(n Namespace) bool { return !lives[n.Name] })
	f.Waypoints = slices.DeleteFunc(f.Waypoints, func(w WaypointStatus) bool { return !lives[w.Namespace] })
	f.Unbound = slices.DeleteFunc(f.Unbound, func(s PolicyStatus) bool { return !lives[s.Namespace] })
	f.Policies = slices.DeleteFunc(f.Policies, func(p PolicyStatus) bool { return !lives[p.Namespace] })
	f.Denials = slices.DeleteFunc(f.Denials, func(d Denial) bool { return d.Namespace != "" && !lives[d.Namespace] })
	f.Stuck = slices.DeleteFunc(f.Stuck, func(s Stuck) bool { return !lives[namespaceOf(s.Pod)] })
	f.Proxies = slices.DeleteFunc(f.Proxies, func(p Proxy) bool { return !lives[namespaceOf(p.Heard.Pod)] })
}

// namespaceOf a pod that is named namespace/name.
func namespaceOf(pod string) string {
	namespace, _, _ := strings.Cut(pod, "/")
	return namespace
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

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

// Audience is for whom the token of a proxy is made out, and for whom the
// control plane wants it.
type Audience struct {
	Part string
	Have string
	Want []string
}

// istioToken is the volume with the token.
const istioToken = "istio-token"

func gatherAudiences(ctx context.Context, c *reach.Cluster, f *Facts) error {
	want := []string{"istio-ca"}
	d, err := c.Client.AppsV1().Deployments(manifests.Namespace).Get(ctx, "istiod", metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("looking at istiod: %w", err)
	}
	if err == nil {
		want = wanted(d.Spec.Template.Spec, want)
	}
	ds, err := c.Client.AppsV1().DaemonSets(manifests.Namespace).Get(ctx, "ztunnel", metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("looking at ztunnel: %w", err)
	}
	if err == nil {
		f.audience("DaemonSet ztunnel", ds.Spec.Template.Spec, want)
	}
	list, err := c.Client.AppsV1().Deployments(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: waypointLabel})
	if err != nil {
		return fmt.Errorf("listing waypoints: %w", err)
	}
	for _, w := range list.Items {
		f.audience("Deployment "+w.Namespace+"/"+w.Name, w.Spec.Template.Spec, want)
	}
	return nil
}

// wanted is what istiod was told to accept.
func wanted(spec corev1.PodSpec, otherwise []string) []string {
	for _, container := range spec.Containers {
		for _, e := range container.Env {
			if e.Name == "TOKEN_AUDIENCES" && e.Value != "" {
				return strings.Split(e.Value, ",")
			}
		}
	}
	return otherwise
}

func (f *Facts) audience(part string, spec corev1.PodSpec, want []string) {
	for _, v := range spec.Volumes {
		if v.Name != istioToken || v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				f.Audiences = append(f.Audiences, Audience{part, s.ServiceAccountToken.Audience, want})
			}
		}
	}
}

func judgeAudiences(f Facts) []Finding {
	var all []Finding
	for _, a := range f.Audiences {
		if !slices.Contains(a.Want, a.Have) {
			all = append(all, Finding{Fail, "token audience", fmt.Sprintf("%s has tokens for %q, istiod takes those for %s: it gets neither configuration nor certificates", a.Part, a.Have, strings.Join(a.Want, ", ")), "set the audience of its volume " + istioToken + " (ambit install does), or TOKEN_AUDIENCES of istiod"})
		}
	}
	if len(all) > 0 {
		return all
	}
	for _, p := range f.Proxies {
		if refusal := p.refusal(); refusal != "" {
			all = append(all, Finding{Fail, "token", fmt.Sprintf("istiod does not accept who %s %s says it is: %s", p.Kind, p.Pod, refusal), "see the reason in istiod's log; look at the pod's service account, the volume " + istioToken + " and the API server's issuer"})
		}
	}
	return all
}

// refusal is the error of a part that is not let in for its token, empty if it
// is let in.
func (p *Proxy) refusal() string {
	errs := []string{}
	if !p.ControlPlane.Connected {
		errs = append(errs, p.ControlPlane.Error)
	}
	for _, i := range p.Identities {
		errs = append(errs, i.Error)
	}
	for _, e := range errs {
		if strings.Contains(e, "Unauthenticated") {
			return e
		}
	}
	return ""
}

package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

// Denial is a write of the mesh's or its users' that admission refuses. Namespace
// is empty for one that was only tried.
type Denial struct{ Namespace, What, Says string }

// gatherDenials has the API server try the writes that the mesh lives by, and
// keep none of them; and looks at what it has refused.
func gatherDenials(ctx context.Context, c *reach.Cluster, f *Facts) error {
	if !f.installed() {
		return nil
	}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	_, err1 := c.Client.CoreV1().ConfigMaps(manifests.Namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "ambit-check-"}}, dry)
	err1 = f.denied("ConfigMaps, by which namespaces learn the root", err1)
	var err2 error
	if f.CRDs["AuthorizationPolicy"] {
		_, err := c.Dynamic.Resource(policyKinds["AuthorizationPolicy"]).Namespace(manifests.Namespace).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
			"metadata": map[string]any{"generateName": "ambit-check-", "namespace": manifests.Namespace},
			"spec":     map[string]any{"action": "ALLOW"},
		}}, dry)
		err2 = f.denied("AuthorizationPolicies", err)
	}
	return errors.Join(err1, err2, f.denyPods(ctx, c), f.deniedBefore(ctx, c))
}

// denyPods tries what the node agent writes on pods, on one of istiod's.
func (f *Facts) denyPods(ctx context.Context, c *reach.Cluster) error {
	pods, err := c.RunningPods(ctx, manifests.Namespace, istiodLabel, "")
	if err != nil || len(pods) == 0 {
		return err
	}
	_, err = c.Client.CoreV1().Pods(manifests.Namespace).Patch(ctx, pods[0].Name, types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"ambient.istio.io/redirection":"disabled"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, "status")
	return f.denied("the status of pods, by which peers learn that one is captured", err)
}

// denied keeps a refusal by a webhook or a policy; another error is returned.
func (f *Facts) denied(what string, err error) error {
	switch {
	case err == nil || apierrors.IsNotFound(err):
		return nil
	case admission(err.Error()):
		f.Denials = append(f.Denials, Denial{What: what, Says: err.Error()})
		return nil
	}
	return fmt.Errorf("trying to write %s: %w", what, err)
}

// admission reports whether a text tells of admission and not of rights.
func admission(text string) bool {
	return strings.Contains(text, "webhook") || strings.Contains(text, "ValidatingAdmissionPolicy")
}

// deniedBefore looks for pods of the mesh that could not be made.
func (f *Facts) deniedBefore(ctx context.Context, c *reach.Cluster) error {
	events, err := c.Client.CoreV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedCreate"})
	if err != nil {
		return fmt.Errorf("listing events: %w", err)
	}
	for i := range events.Items {
		e := &events.Items[i]
		mine := e.Namespace == manifests.Namespace || slices.ContainsFunc(f.Waypoints, func(w WaypointStatus) bool {
			return w.Namespace == e.Namespace && strings.HasPrefix(e.InvolvedObject.Name, w.Name)
		})
		d := Denial{e.Namespace, "pods of " + e.InvolvedObject.Kind + " " + e.InvolvedObject.Name, e.Message}
		if mine && f.recently(at(e)) && (admission(e.Message) || strings.Contains(e.Message, "forbidden")) && !slices.Contains(f.Denials, d) {
			f.Denials = append(f.Denials, d)
		}
	}
	return nil
}

func judgeDenials(f Facts) []Finding {
	var all []Finding
	for _, d := range f.Denials {
		all = append(all, Finding{Fail, "admission", "refuses " + d.What + ": " + d.Says, "correct the webhook, policy or quota that is named, or exempt istio-system from it: kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations,validatingadmissionpolicies"})
	}
	return all
}

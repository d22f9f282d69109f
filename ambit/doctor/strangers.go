package doctor

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/manifests"
)

// Stranger is a policy that names principals of a trust domain that is not the
// mesh's.
type Stranger struct{ Policy, Domain string }

func gatherMesh(ctx context.Context, c *reach.Cluster, f *Facts) error {
	f.Mesh.TrustDomain = spiffe.DefaultTrustDomain
	cm, err := c.Client.CoreV1().ConfigMaps(manifests.Namespace).Get(ctx, "istio", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading ConfigMap istio: %w", err)
	}
	if err := yaml.Unmarshal([]byte(cm.Data["mesh"]), &f.Mesh); err != nil {
		return fmt.Errorf("reading ConfigMap istio: %w", err)
	}
	return nil
}

// strangers are the unknown trust domains of a policy's principals, each once.
func strangers(policy *unstructured.Unstructured, m Mesh) []Stranger {
	var out []Stranger
	rules, _, _ := unstructured.NestedSlice(policy.Object, "spec", "rules")
	for _, rule := range rules {
		from, _, _ := unstructured.NestedSlice(object(rule), "from")
		for _, f := range from {
			for _, field := range []string{"principals", "notPrincipals"} {
				names, _, _ := unstructured.NestedStringSlice(object(f), "source", field)
				for _, name := range names {
					s := Stranger{policy.GetNamespace() + "/" + policy.GetName(), splitPrincipal(name)}
					if s.Domain != "" && !m.knows(s.Domain) && !slices.Contains(out, s) {
						out = append(out, s)
					}
				}
			}
		}
	}
	return out
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

package kube

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

func TestStatusOfAGateway(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	told := func(listener string, status bool) translate.Condition {
		c := translate.Condition{Generation: 2, Type: "Programmed", Status: status, Reason: "R", Message: "m"}
		if listener != "" {
			c.Parent = translate.Parent{Kind: translate.KindListener, SectionName: listener}
		}
		return c
	}
	detail := &translate.Detail{Addresses: []string{"10.96.0.9", "fd00::9"}, Hostnames: []string{"w.shop.svc.cluster.local"}, Listeners: []string{"mesh"}}
	const wanted = `
addresses:
- {type: IPAddress, value: 10.96.0.9}
- {type: IPAddress, value: "fd00::9"}
- {type: Hostname, value: w.shop.svc.cluster.local}
conditions:
- {type: Programmed, status: "True", reason: R, message: m, observedGeneration: 2, lastTransitionTime: "2030-01-02T03:04:05Z"}
listeners:
- name: mesh
  attachedRoutes: 0
  supportedKinds: []
  conditions:
  - {type: Programmed, status: "True", reason: R, message: m, observedGeneration: 2, lastTransitionTime: "2030-01-02T03:04:05Z"}
`
	const before = `
conditions:
- {type: Programmed, status: "True", reason: R, message: m, observedGeneration: 2, lastTransitionTime: "2029-01-01T00:00:00Z"}
- {type: Foreign, status: "True", reason: X, message: "", observedGeneration: 1, lastTransitionTime: "2029-01-01T00:00:00Z"}
`
	for _, tt := range []struct {
		sentence string
		have     string
		want     []translate.Condition
		detail   *translate.Detail
		patch    string
		changed  bool
	}{
		{"nothing was said yet", "", []translate.Condition{told("", true), told("mesh", true)}, detail, wanted, true},
		{"all is said already", wanted, []translate.Condition{told("", true), told("mesh", true)}, detail, wanted, false},
		{
			"others' conditions do not matter, and the time stays", before, []translate.Condition{told("", true)}, &translate.Detail{},
			"addresses: []\nlisteners: []\nconditions: [{type: Programmed, status: \"True\", reason: R, message: m, observedGeneration: 2, lastTransitionTime: \"2029-01-01T00:00:00Z\"}]", false,
		},
		{
			"a status that is not true any more is said to be false", before, []translate.Condition{told("", false)}, &translate.Detail{},
			"addresses: []\nlisteners: []\nconditions: [{type: Programmed, status: \"False\", reason: R, message: m, observedGeneration: 2, lastTransitionTime: \"2030-01-02T03:04:05Z\"}]", true,
		},
		{"a listener that is gone is said no more", wanted, []translate.Condition{told("", true)}, &translate.Detail{}, "", true},
		{"nothing to say of one of which nothing was said", before, nil, nil, "", false},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			have := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "w", "namespace": "shop", "uid": "u1"}}}
			if tt.have != "" {
				have.Object["status"] = read(t, tt.have)
			}
			got, changed := detailed[objects.KindGateway].status(have, tt.want, tt.detail, now)
			if changed != tt.changed {
				t.Errorf("changed is %v, want %v", changed, tt.changed)
			}
			if tt.patch != "" {
				if d := cmp.Diff(read(t, tt.patch), got.Object["status"]); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			}
			if got.GetUID() != "u1" {
				t.Error("could write to a later object of the same name")
			}
		})
	}
}

func TestAGatewayThatIsNoWaypointAnyMoreIsLetGo(t *testing.T) {
	have := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"addresses": []any{}}}}
	have.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "ambit-waypoint", Subresource: "status"}})
	got, changed := detailed[objects.KindGateway].status(have, nil, nil, time.Now())
	if _, said := got.Object["status"]; said || !changed {
		t.Errorf("applied %v, changed %v: want an empty status, which gives up what was said", got.Object, changed)
	}
}

func TestFeaturesOfAClass(t *testing.T) {
	have := &unstructured.Unstructured{Object: map[string]any{}}
	got, changed := detailed[objects.KindGatewayClass].status(have, nil, &translate.Detail{Features: []string{"HTTPRoute", "Mesh"}}, time.Now())
	if d := cmp.Diff(map[string]any{"supportedFeatures": []any{map[string]any{"name": "HTTPRoute"}, map[string]any{"name": "Mesh"}}}, got.Object["status"]); d != "" || !changed {
		t.Errorf("changed %v (-want +got):\n%s", changed, d)
	}
}

// read is YAML in the form of the API, with whole numbers.
func read(t *testing.T, text string) any {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte("kind: K\nstatus:\n  " + strings.ReplaceAll(text, "\n", "\n  ")))
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(j); err != nil {
		t.Fatal(err)
	}
	return o.Object["status"]
}

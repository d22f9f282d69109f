package waypoints

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	k8stesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

// cluster is an in-memory API server with objects, which takes applied ones.
func cluster(t *testing.T, objects ...string) Client {
	t.Helper()
	d := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		gateways: "GatewayList", namespaces: "NamespaceList",
	})
	for _, text := range objects {
		o, resource := object(t, text), namespaces
		if o.GetKind() == "Gateway" {
			resource = gateways
		}
		if err := d.Tracker().Create(resource, o, o.GetNamespace()); err != nil {
			t.Fatal(err)
		}
	}
	d.PrependReactor("patch", "gateways", func(a k8stesting.Action) (bool, runtime.Object, error) {
		p := a.(k8stesting.PatchActionImpl)
		if p.GetPatchType() != types.ApplyPatchType {
			t.Errorf("patches by %s", p.GetPatchType())
		}
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(p.GetPatch()); err != nil {
			t.Error(err)
		}
		if err := d.Tracker().Create(gateways, o, p.GetNamespace()); err != nil {
			return true, o, d.Tracker().Update(gateways, o, p.GetNamespace())
		}
		return true, o, nil
	})
	return Client{API: d}
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(j); err != nil {
		t.Fatal(err)
	}
	return o
}

func ns(name, labels string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {%s}}}", name, labels)
}

func gw(name, class, programmed string) string {
	return fmt.Sprintf(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: %s, namespace: shop, uid: u, generation: 2}, spec: {gatewayClassName: %s},
status: {conditions: [{type: Programmed, status: "%s", observedGeneration: 2, reason: R, message: no pod is ready}]}}`, name, class, programmed)
}

func TestEnrolling(t *testing.T) {
	for _, tt := range []struct {
		sentence, labels string
		overwrite        bool
		want             map[string]string
		outside          bool
		err              string
	}{
		{"a namespace of the mesh", "istio.io/dataplane-mode: ambient", false, map[string]string{"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "w"}, false, ""},
		{"one outside is enrolled, and that is told", "", false, map[string]string{"istio.io/use-waypoint": "w"}, true, ""},
		{"one that uses it already", "istio.io/use-waypoint: w", false, map[string]string{"istio.io/use-waypoint": "w"}, true, ""},
		{"one that uses another is left alone", "istio.io/use-waypoint: x", false, map[string]string{"istio.io/use-waypoint": "x"}, true, "uses waypoint shop/x already (--overwrite replaces it)"},
		{
			"one that uses another namespace's is told so", "istio.io/use-waypoint: w, istio.io/use-waypoint-namespace: infra", false,
			map[string]string{"istio.io/use-waypoint": "w", "istio.io/use-waypoint-namespace": "infra"}, true, "uses waypoint infra/w already",
		},
		{"unless that is wanted", "istio.io/use-waypoint: x, istio.io/use-waypoint-namespace: infra", true, map[string]string{"istio.io/use-waypoint": "w"}, true, ""},
	} {
		c := cluster(t, ns("shop", tt.labels))
		e, err := c.Enrol(t.Context(), Wish{Namespace: "shop", Name: "w"}, tt.overwrite)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %v, want %q", tt.sentence, err, tt.err)
		}
		if e.Outside != tt.outside {
			t.Errorf("%s: outside is %v", tt.sentence, e.Outside)
		}
		o, err := c.API.Resource(namespaces).Get(t.Context(), "shop", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, o.GetLabels()); d != "" {
			t.Errorf("%s: labels (-want +got):\n%s", tt.sentence, d)
		}
	}
}

func TestOnlyWaypointsAreListedAndDeleted(t *testing.T) {
	c := cluster(t, ns("shop", "istio.io/use-waypoint: w"), ns("guest", "istio.io/use-waypoint: w, istio.io/use-waypoint-namespace: shop"), ns("other", "istio.io/use-waypoint: w"),
		gw("w", Class, "True"), gw("ingress", "nginx", "True"))
	list, err := c.List(t.Context(), "")
	if err != nil || len(list) != 1 || list[0].GetName() != "w" {
		t.Errorf("listed %v, %v", list, err)
	}
	users, err := c.Users(t.Context(), "shop", "w")
	if d := cmp.Diff([]string{"guest", "shop"}, users); d != "" || err != nil {
		t.Errorf("users %v, %v", d, err)
	}
	if err := c.Delete(t.Context(), "shop", "ingress"); err == nil || !strings.Contains(err.Error(), "is of class nginx: it is no waypoint") {
		t.Errorf("deleting a Gateway of another class: %v", err)
	}
	if err := c.Delete(t.Context(), "shop", "gone"); err == nil || !strings.Contains(err.Error(), "there is no waypoint shop/gone") {
		t.Errorf("deleting one that is not there: %v", err)
	}
	if err := c.Delete(t.Context(), "shop", "w"); err != nil {
		t.Error(err)
	}
	if list, _ := c.List(t.Context(), "shop"); len(list) != 0 {
		t.Errorf("still there: %v", list)
	}
}

func TestApplyingAndWaiting(t *testing.T) {
	c := cluster(t, ns("shop", ""))
	w := Wish{Namespace: "shop", Name: "w", For: "all"}
	if err := c.Apply(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), Wish{Namespace: "gone", Name: "w"}); err == nil || !strings.Contains(err.Error(), "looking for namespace gone") {
		t.Errorf("in a namespace that is not there: %v", err)
	}
	over := errors.New("not within 1s")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if err := c.Wait(ctx, "shop", "w", time.Millisecond); !errors.Is(err, over) || !strings.Contains(err.Error(), "the control plane has said nothing about it") {
		t.Errorf("waiting for one that nobody serves: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait(t.Context(), "shop", "w", time.Millisecond) }()
	if _, err := c.API.Resource(gateways).Namespace("shop").Update(t.Context(), object(t, gw("w", Class, "False")), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(ctx, "shop", "w", time.Millisecond); err == nil || !strings.Contains(err.Error(), "no pod is ready") {
		t.Errorf("waiting for one that is not ready: %v", err)
	}
	if _, err := c.API.Resource(gateways).Namespace("shop").Update(t.Context(), object(t, gw("w", Class, "True")), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("waiting for one that becomes ready: %v", err)
	}
}

func TestWishes(t *testing.T) {
	for _, w := range []Wish{{Name: "none"}, {Name: "auto"}, {Name: "w", For: "everything"}} {
		if w.Check() == nil {
			t.Errorf("%+v is accepted", w)
		}
	}
	for _, f := range append(Traffic, "") {
		if err := (Wish{Name: "w", For: f}).Check(); err != nil {
			t.Error(err)
		}
	}
}

package kube

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// What is true of routes and their parents is true of policies and their
// ancestors; only the names of fields differ.
func TestAPolicyIsToldForEachAncestor(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	target := map[string]any{"group": "", "kind": "Service", "name": "reviews"}
	theirs := map[string]any{"controllerName": "example.org/c", "ancestorRef": target, "conditions": []any{}}
	have := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"ancestors": []any{theirs}}}}
	want := []translate.Condition{{
		Parent: translate.Parent{Kind: "Service", Name: "reviews"}, Generation: 2,
		Type: translate.TypeAccepted, Status: true, Reason: translate.ReasonAccepted, Message: "m",
	}}
	got, changed := parentsOf(ancestors, have, want, now)
	d := cmp.Diff([]any{theirs, map[string]any{
		"controllerName": routeController, "ancestorRef": target,
		"conditions": []any{wire("Accepted", "True", "Accepted", "m", "2030-01-02T03:04:05Z", int64(2))},
	}}, got)
	if d != "" || !changed {
		t.Errorf("changed %v (-want +got):\n%s", changed, d)
	}
}

package kube

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

var policyRef = objects.Ref{Kind: objects.KindAuthorizationPolicy, Key: objects.Key{Namespace: "shop", Name: "p"}}

func accepted(generation int64, ok bool) translate.Condition {
	c := translate.Condition{Object: policyRef, Generation: generation, Type: translate.TypeZtunnelAccepted, Status: ok, Reason: translate.ReasonAccepted, Message: "fine"}
	if !ok {
		c.Reason, c.Message = translate.ReasonUnsupportedValue, "methods"
	}
	return c
}

func policy(conditions ...any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
		"metadata": map[string]any{"namespace": "shop", "name": "p", "uid": "u1"},
	}}
	if len(conditions) > 0 {
		o.Object["status"] = map[string]any{"conditions": conditions}
	}
	return o
}

func wire(typ, status, reason, message, since string, generation any) map[string]any {
	return map[string]any{"type": typ, "status": status, "reason": reason, "message": message, "lastTransitionTime": since, "observedGeneration": generation}
}

func TestConditionPatches(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	const at, before = "2030-01-02T03:04:05Z", "2029-01-01T00:00:00Z"
	const z = translate.TypeZtunnelAccepted
	foreign := wire("example.com/Seen", "True", "Accepted", "", before, int64(1))
	for _, tt := range []struct {
		name    string
		have    *unstructured.Unstructured
		want    []translate.Condition
		patch   []any
		changed bool
	}{
		{"the first", policy(), []translate.Condition{accepted(1, true)}, []any{wire(z, "True", "Accepted", "fine", at, int64(1))}, true},
		{"nothing new", policy(wire(z, "True", "Accepted", "fine", before, int64(1))), []translate.Condition{accepted(1, true)}, []any{wire(z, "True", "Accepted", "fine", before, int64(1))}, false},
		{"a generation written as text is understood", policy(wire(z, "True", "Accepted", "fine", before, "1")), []translate.Condition{accepted(1, true)}, []any{wire(z, "True", "Accepted", "fine", before, int64(1))}, false},
		{"a new generation keeps the time of transition", policy(wire(z, "True", "Accepted", "fine", before, int64(1))), []translate.Condition{accepted(2, true)}, []any{wire(z, "True", "Accepted", "fine", before, int64(2))}, true},
		{"a new status moves it", policy(wire(z, "True", "Accepted", "fine", before, int64(1))), []translate.Condition{accepted(2, false)}, []any{wire(z, "False", "UnsupportedValue", "methods", at, int64(2))}, true},
		{"conditions of others stay", policy(foreign), []translate.Condition{accepted(1, true)}, []any{wire(z, "True", "Accepted", "fine", at, int64(1)), foreign}, true},
		{"ours is taken away when it has nothing to say", policy(wire(z, "True", "Accepted", "fine", before, int64(1)), foreign), nil, []any{foreign}, true},
		{"nothing to take away", policy(foreign), nil, []any{foreign}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, changed := targets[objects.KindAuthorizationPolicy].patch(tt.have, tt.want, now)
			conditions, _, _ := unstructured.NestedSlice(got.Object, "status", "conditions")
			if d := cmp.Diff(tt.patch, conditions); d != "" {
				t.Error(d)
			}
			if changed != tt.changed {
				t.Errorf("changed is %v, want %v", changed, tt.changed)
			}
			if got.GetUID() != "u1" {
				t.Error("could write to a later object of the same name")
			}
		})
	}
}

// statuses is an API server that takes applied statuses.
type statuses struct {
	mu      sync.Mutex
	fail    int // this many next applications
	applied []string
}

func (s *statuses) client(t *testing.T) *dynamicfake.FakeDynamicClient {
	kinds := map[schema.GroupVersionResource]string{targets[objects.KindAuthorizationPolicy].resource: "AuthorizationPolicyList"}
	c := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, policy())
	c.PrependReactor("patch", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
		p := a.(k8stesting.PatchActionImpl)
		if p.GetPatchType() != types.ApplyPatchType || p.GetSubresource() != "status" || p.PatchOptions.FieldManager != "istio-ambient-ztunnel-policy" {
			t.Errorf("patches %s %q as %q", p.GetPatchType(), p.GetSubresource(), p.PatchOptions.FieldManager)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.fail > 0 {
			s.fail--
			return true, nil, errors.New("not now")
		}
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(p.GetPatch()); err != nil {
			t.Error(err)
		}
		reason := ""
		for _, c := range conditionsOf(o) {
			reason, _ = c["reason"].(string)
		}
		s.applied = append(s.applied, reason)
		return true, o, c.Tracker().Update(p.GetResource(), o, p.GetNamespace())
	})
	return c
}

func (s *statuses) are(want ...string) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return cmp.Equal(s.applied, want)
	}
}

func TestConditionsAreWrittenByTheLeaderOnly(t *testing.T) {
	s := &statuses{fail: 2}
	c := NewConditions(s.client(t), quiet)
	c.Want([]translate.Condition{accepted(1, true)}) // before leading: remembered
	stop := running(t, c.Run)
	eventually(t, "what was wanted before is written, after two refusals", s.are("Accepted"))
	gone := accepted(1, true)
	gone.Object.Key.Name = "gone"
	c.Want([]translate.Condition{accepted(2, false), gone}) // one of an object that is no more
	eventually(t, "a change is written", s.are("Accepted", "UnsupportedValue"))
	stop()
	c.Want([]translate.Condition{accepted(3, true)})
	if !s.are("Accepted", "UnsupportedValue")() {
		t.Error("written although another leads")
	}
	running(t, c.Run)
	eventually(t, "leading again, what changed meanwhile is written", s.are("Accepted", "UnsupportedValue", "Accepted"))
	c.Want(nil)
	eventually(t, "what is not wanted any more is taken away", s.are("Accepted", "UnsupportedValue", "Accepted", ""))
}

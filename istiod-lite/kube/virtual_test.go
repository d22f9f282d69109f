package kube

import (
	"encoding/json"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	api "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

var entryRef = objects.Ref{Kind: objects.KindServiceEntry, Key: objects.Key{Namespace: "shop", Name: "api"}}

// entryWith is an entry with addresses in its status, as the API server gives it.
func entryWith(addresses ...any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
		"metadata": map[string]any{"namespace": "shop", "name": "api", "uid": "u1"},
	}}
	if len(addresses) > 0 {
		o.Object["status"] = map[string]any{"addresses": addresses}
	}
	return o
}

func address(host, value string) map[string]any { return map[string]any{"host": host, "value": value} }

func virtual(pairs ...string) *translate.Detail {
	d := &translate.Detail{}
	for i := 0; i < len(pairs); i += 2 {
		d.Virtual = append(d.Virtual, translate.VirtualAddress{Host: pairs[i], Value: pairs[i+1]})
	}
	return d
}

func TestVirtualAddressesAreWritten(t *testing.T) {
	const host = "api.example.com"
	told := map[string]any{"conditions": []any{map[string]any{"type": "X"}}}
	for _, tt := range []struct {
		sentence string
		have     *unstructured.Unstructured
		want     *translate.Detail
		status   map[string]any // of the patch, before
		after    any            // addresses of the patch
		changed  bool
	}{
		{"the first", entryWith(), virtual(host, "240.240.0.1", host, "2001:2::1"), nil, []any{address(host, "240.240.0.1"), address(host, "2001:2::1")}, true},
		{"beside conditions", entryWith(), virtual(host, "240.240.0.1"), told, []any{address(host, "240.240.0.1")}, true},
		{"those that are there are applied again, else they would go", entryWith(address(host, "240.240.0.1")), virtual(host, "240.240.0.1"), nil, []any{address(host, "240.240.0.1")}, false},
		{"another address", entryWith(address(host, "240.240.0.1")), virtual(host, "240.240.0.2"), nil, []any{address(host, "240.240.0.2")}, true},
		{"another host", entryWith(address(host, "240.240.0.1")), virtual("b.example.com", "240.240.0.1"), nil, []any{address("b.example.com", "240.240.0.1")}, true},
		{"none any longer", entryWith(address(host, "240.240.0.1")), nil, told, nil, true},
		{"none, as before", entryWith(), nil, told, nil, false},
	} {
		p := &unstructured.Unstructured{Object: map[string]any{}}
		if tt.status != nil {
			p.Object["status"] = runtime.DeepCopyJSON(tt.status)
		}
		if got := addresses(p, tt.have, tt.want); got != tt.changed {
			t.Errorf("%s: changed is %v, want %v", tt.sentence, got, tt.changed)
		}
		status, _ := p.Object["status"].(map[string]any)
		if d := cmp.Diff(tt.after, status["addresses"]); d != "" {
			t.Errorf("%s: addresses (-want +got):\n%s", tt.sentence, d)
		}
		if tt.status != nil && status["conditions"] == nil {
			t.Errorf("%s: the conditions are lost", tt.sentence)
		}
	}
}

// TestWhoHasNoVirtualAddressAnyLongerIsWritten: although nothing else of what its
// owner is told changes. So it is for an entry whose status somebody else changed.
func TestWhoHasNoVirtualAddressAnyLongerIsWritten(t *testing.T) {
	const host = "api.example.com"
	resource := schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "serviceentries"}
	client := dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())
	var mu sync.Mutex
	have := entryWith(address(host, "240.240.0.1"))
	writes := 0
	client.PrependReactor("get", resource.Resource, func(k8stesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		return true, have.DeepCopy(), nil
	})
	client.PrependReactor("patch", resource.Resource, func(a k8stesting.Action) (bool, runtime.Object, error) {
		var patch unstructured.Unstructured
		if err := json.Unmarshal(a.(k8stesting.PatchAction).GetPatch(), &patch.Object); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		have = entryWith()
		if status, ok := patch.Object["status"]; ok {
			have.Object["status"] = status
		}
		writes++
		return true, have.DeepCopy(), nil
	})
	is := func(want ...any) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			got, _, _ := unstructured.NestedSlice(have.Object, "status", "addresses")
			return cmp.Equal(want, got)
		}
	}
	c := NewConditions(client, quiet)
	c.Want([]translate.Condition{{Object: entryRef, Type: translate.TypeEntryAccepted, Status: true, Reason: translate.ReasonAccepted}})
	c.Details(map[objects.Ref]*translate.Detail{entryRef: virtual(host, "240.240.0.1")})
	running(t, c.Run)
	eventually(t, "the condition is written, and the address with it", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(conditionsOf(have)) == 1 && writes > 0
	})
	seen := &networking.ServiceEntry{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api"}}
	mu.Lock()
	have = entryWith(address(host, "240.240.9.9"))
	mu.Unlock()
	seen.Status.Addresses = []*api.ServiceEntryAddress{{Host: host, Value: "240.240.9.9"}}
	c.Seen(entryRef, seen)
	eventually(t, "an address that somebody else wrote is put back", is(address(host, "240.240.0.1")))
	c.Details(map[objects.Ref]*translate.Detail{})
	eventually(t, "the address is taken away", is())
}

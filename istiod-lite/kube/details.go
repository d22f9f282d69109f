package kube

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// detailed are the kinds whose status says more than conditions. All their lists
// are merged by the API server, so that each writer applies its own part.
var detailed = map[objects.Kind]target{
	objects.KindGateway:      {gateway.SchemeGroupVersion.WithResource("gateways"), "Gateway", "ambit-waypoint"},
	objects.KindGatewayClass: {gateway.SchemeGroupVersion.WithResource("gatewayclasses"), "GatewayClass", "ambit-waypoint"},
	objects.KindXMesh: {
		schema.GroupVersionResource{Group: gatewayx.GroupName, Version: "v1alpha1", Resource: "xmeshes"},
		"XMesh", "ambit-waypoint",
	},
}

// Details replaces what statuses say beside conditions. It never waits for the
// API server.
func (c *Conditions) Details(all map[objects.Ref]*translate.Detail) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.details
	c.details = all
	if c.queue == nil {
		return
	}
	for ref, d := range all {
		if was[ref] != d {
			c.queue.Add(ref)
		}
	}
	for ref := range was {
		if all[ref] == nil {
			c.queue.Add(ref)
		}
	}
}

// status is what to apply so that the object says all that is wanted, and
// whether that changes anything.
func (t target) status(have *unstructured.Unstructured, want []translate.Condition, d *translate.Detail, now time.Time) (*unstructured.Unstructured, bool) {
	status := map[string]any{}
	if own := mergedConditions(have.Object["status"], want, translate.Parent{}, now); len(own) > 0 {
		status["conditions"] = own
	}
	if d != nil {
		t.detail(status, have, want, d, now)
	}
	p := t.naming(have)
	if len(status) == 0 {
		return p, slices.ContainsFunc(have.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool { return f.Manager == t.manager })
	}
	p.Object["status"] = status
	return p, !says(have.Object["status"], status)
}

func (t target) detail(status map[string]any, have *unstructured.Unstructured, want []translate.Condition, d *translate.Detail, now time.Time) {
	if t.kind != "Gateway" {
		list := []any{}
		for _, f := range d.Features {
			list = append(list, map[string]any{"name": f})
		}
		status["supportedFeatures"] = list
		return
	}
	addresses, listeners := []any{}, []any{}
	for _, a := range d.Addresses {
		addresses = append(addresses, map[string]any{"type": "IPAddress", "value": a})
	}
	for _, h := range d.Hostnames {
		addresses = append(addresses, map[string]any{"type": "Hostname", "value": h})
	}
	old, _, _ := unstructured.NestedSlice(have.Object, "status", "listeners")
	for _, name := range d.Listeners {
		var was any
		if i := slices.IndexFunc(old, func(l any) bool { return field(l, "name") == name }); i >= 0 {
			was = old[i]
		}
		listeners = append(listeners, map[string]any{
			"name": name, "attachedRoutes": int64(0), "supportedKinds": []any{},
			"conditions": mergedConditions(was, want, translate.Parent{Kind: translate.KindListener, SectionName: name}, now),
		})
	}
	status["addresses"], status["listeners"] = addresses, listeners
}

// mergedConditions are those about one parent, over those in what was there.
func mergedConditions(was any, want []translate.Condition, about translate.Parent, now time.Time) []any {
	old, _ := field(was, "conditions").([]any)
	out := []any{}
	for _, w := range want {
		if w.Parent != about {
			continue
		}
		next, _ := condition(w, byType(old, w.Type), now)
		out = append(out, next)
	}
	return out
}

func byType(conditions []any, typ string) map[string]any {
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == typ {
			return m
		}
	}
	return nil
}

func field(of any, name string) any {
	m, _ := of.(map[string]any)
	return m[name]
}

// says reports whether what is there has all that is wanted. Of conditions
// there may be others' too.
func says(have, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		for k, v := range want {
			if list, ok := v.([]any); ok && k == "conditions" {
				old, _ := field(have, k).([]any)
				for _, c := range list {
					if typ, _ := field(c, "type").(string); !says(byType(old, typ), c) {
						return false
					}
				}
			} else if !says(field(have, k), v) {
				return false
			}
		}
		return true
	case []any:
		old, _ := have.([]any)
		if len(old) != len(want) {
			return false
		}
		for i := range want {
			if !says(old[i], want[i]) {
				return false
			}
		}
		return true
	}
	return have == want
}

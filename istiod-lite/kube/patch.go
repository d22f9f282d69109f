package kube

import (
	"maps"
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

var (
	getOptions = metav1.GetOptions{}
	everything = labels.Everything()
)

// target is a kind whose status is written.
type target struct {
	resource schema.GroupVersionResource
	kind     string
	// manager owns our conditions among those of other writers.
	manager string
}

// targets are the kinds that are told something in status.conditions; the managers are Istio's
// where it writes there too.
var targets = map[objects.Kind]target{
	objects.KindAuthorizationPolicy: {
		schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"},
		"AuthorizationPolicy", "istio-ambient-ztunnel-policy",
	},
	objects.KindRequestAuthentication: {
		schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "requestauthentications"},
		"RequestAuthentication", "istio-ambient-waypoint-policy",
	},
	objects.KindPeerAuthentication: {
		schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "peerauthentications"},
		"PeerAuthentication", "istio-ambient-ztunnel-policy",
	},
	objects.KindServiceEntry: {
		schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "serviceentries"},
		"ServiceEntry", "istio-ambient-service",
	},
	objects.KindDestinationRule: {
		schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "destinationrules"},
		"DestinationRule", "ambit-traffic",
	},
	objects.KindService: {
		schema.GroupVersionResource{Version: "v1", Resource: "services"},
		"Service", "istio-ambient-service",
	},
}

// listTarget is a kind whose conditions are in a list of its status.
type listTarget struct {
	target
	list list
}

// listed are the kinds that are told something for each parent or target.
var listed = map[objects.Kind]listTarget{
	objects.KindHTTPRoute: {target{gateway.SchemeGroupVersion.WithResource("httproutes"), "HTTPRoute", "istio-ambient-route"}, parents},
	objects.KindGRPCRoute: {target{gateway.SchemeGroupVersion.WithResource("grpcroutes"), "GRPCRoute", "istio-ambient-route"}, parents},
	objects.KindTLSRoute:  {target{gateway.SchemeGroupVersion.WithResource("tlsroutes"), "TLSRoute", "istio-ambient-route"}, parents},
	objects.KindTCPRoute:  {target{gateway.SchemeGroupVersion.WithResource("tcproutes"), "TCPRoute", "istio-ambient-route"}, parents},
	objects.KindXBackendTrafficPolicy: {target{
		schema.GroupVersionResource{Group: gatewayx.GroupName, Version: "v1alpha1", Resource: "xbackendtrafficpolicies"},
		"XBackendTrafficPolicy", "ambit-traffic",
	}, ancestors},
}

func (t target) applyOptions() metav1.ApplyOptions {
	return metav1.ApplyOptions{FieldManager: t.manager, Force: true}
}

// patch is what to apply so that the object says what is wanted, and whether
// that changes anything. Conditions of ours that are not wanted any more are
// left out, which takes them away. Those of other writers stay as they are:
// the lists of Istio's kinds are replaced whole, so they are repeated.
func (t target) patch(have *unstructured.Unstructured, want []translate.Condition, now time.Time) (*unstructured.Unstructured, bool) {
	old := conditionsOf(have)
	var next []any
	changed := false
	for _, w := range want {
		c, same := condition(w, old[w.Type], now)
		changed = changed || !same
		next = append(next, c)
	}
	for _, typ := range slices.Sorted(maps.Keys(old)) {
		switch {
		case slices.ContainsFunc(want, func(w translate.Condition) bool { return w.Type == typ }):
		case slices.Contains(ours, typ):
			changed = true
		case t.kind != "Service": // whose list is merged by type
			next = append(next, old[typ])
		}
	}
	p := t.naming(have)
	if len(next) > 0 {
		p.Object["status"] = map[string]any{"conditions": next}
	}
	return p, changed
}

// naming begins a patch of an object.
func (t target) naming(have *unstructured.Unstructured) *unstructured.Unstructured {
	p := &unstructured.Unstructured{Object: map[string]any{}}
	p.SetAPIVersion(t.resource.GroupVersion().String())
	p.SetKind(t.kind)
	p.SetNamespace(have.GetNamespace())
	p.SetName(have.GetName())
	p.SetUID(have.GetUID()) // never a newer object of the same name
	return p
}

// ours are the types of conditions that only this control plane writes.
var ours = []string{translate.TypeZtunnelAccepted, translate.TypeWaypointBound, translate.TypeEntryAccepted, translate.TypeVisibilityApplied, translate.TypeRuleAccepted, translate.TypeWaypointAccepted}

// condition is the wire form. The transition time moves only with the status.
func condition(w translate.Condition, old map[string]any, now time.Time) (c map[string]any, same bool) {
	status := string(metav1.ConditionFalse)
	if w.Status {
		status = string(metav1.ConditionTrue)
	}
	c = map[string]any{
		"type": w.Type, "status": status, "reason": w.Reason, "message": w.Message,
		"observedGeneration": w.Generation,
		"lastTransitionTime": now.UTC().Format(time.RFC3339),
	}
	if old == nil {
		return c, false
	}
	if old["status"] == status && old["lastTransitionTime"] != nil {
		c["lastTransitionTime"] = old["lastTransitionTime"]
	}
	for _, field := range []string{"status", "reason", "message"} {
		if text, _ := old[field].(string); text != c[field] {
			return c, false
		}
	}
	return c, generation(old["observedGeneration"]) == w.Generation
}

// conditionsOf reads an object's conditions by type.
func conditionsOf(o *unstructured.Unstructured) map[string]map[string]any {
	out := map[string]map[string]any{}
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, e := range list {
		if c, ok := e.(map[string]any); ok {
			if typ, _ := c["type"].(string); typ != "" {
				out[typ] = c
			}
		}
	}
	return out
}

// generation reads a number that Istio's kinds may also write as text.
func generation(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	case string:
		if i, err := strconv.ParseInt(n, 10, 64); err == nil {
			return i
		}
	}
	return 0
}

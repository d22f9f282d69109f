package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ambit-mesh/ambit/ambit/reach"
)

// kinds are the custom kinds that the mesh reads, by the version that serves
// them.
var kinds = map[string][]string{
	"security.istio.io/v1":         {"AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"},
	"networking.istio.io/v1":       {"ServiceEntry", "DestinationRule"},
	"gateway.networking.k8s.io/v1": {"GatewayClass", "Gateway", "HTTPRoute"},
}

func gatherCRDs(_ context.Context, c *reach.Cluster, f *Facts) error {
	f.CRDs = map[string]bool{}
	for version, names := range kinds {
		list, err := c.Client.Discovery().ServerResourcesForGroupVersion(version)
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("asking what %s holds: %w", version, err)
		}
		for _, name := range names {
			f.CRDs[name] = list != nil && slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == name })
		}
	}
	return nil
}

// judgeCRDs fails where nobody could say who may connect; the Gateway API may
// have been left out on purpose.
func judgeCRDs(f Facts) []Finding {
	var all []Finding
	for _, kind := range slices.Sorted(maps.Keys(f.CRDs)) {
		switch {
		case f.CRDs[kind]:
			all = append(all, ok("definition", kind))
		case slices.Contains(kinds["security.istio.io/v1"], kind):
			all = append(all, Finding{Fail, "definition", kind + " is missing", "its objects are gone and cannot be written, so nothing of them is enforced; run: ambit install, and apply the objects again"})
		default:
			all = append(all, Finding{Warn, "definition", kind + " is missing", "its objects cannot be written; run: ambit install"})
		}
	}
	return all
}

var policyKinds = map[string]schema.GroupVersionResource{
	"AuthorizationPolicy": {Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"},
	"PeerAuthentication":  {Group: "security.istio.io", Version: "v1", Resource: "peerauthentications"},
}

func gatherPolicies(ctx context.Context, c *reach.Cluster, f *Facts) error {
	for kind, gvr := range policyKinds {
		if !f.CRDs[kind] {
			continue
		}
		list, err := c.Dynamic.Resource(gvr).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("listing %s: %w", gvr.Resource, err)
		}
		for _, obj := range list.Items {
			f.Policies = append(f.Policies, conditions(&obj)...)
			if kind == "AuthorizationPolicy" {
				f.Strangers = append(f.Strangers, strangers(&obj, f.Mesh)...)
			}
		}
	}
	return nil
}

// conditions are the conditions of an object that are not true.
func conditions(obj *unstructured.Unstructured) []PolicyStatus {
	list, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	var out []PolicyStatus
	for _, item := range list {
		cond, ok := item.(map[string]any)
		if !ok || cond["status"] == "True" {
			continue
		}
		message, _ := cond["message"].(string)
		kind, _ := cond["type"].(string)
		out = append(out, PolicyStatus{obj.GetNamespace(), obj.GetName(), kind, strings.TrimSpace(message)})
	}
	return out
}

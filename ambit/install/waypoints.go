package install

import (
	"context"
	"errors"
	"fmt"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// What the control plane makes in the cluster, and by which it is known.
const (
	waypointLabel  = "gateway.istio.io/managed=istio.io-mesh-controller"
	meshController = "istio.io/mesh-controller"
)

// waypointKinds are what waypoints are made of, the pods first.
var waypointKinds = []schema.GroupVersionResource{
	{Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"},
	{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"},
	{Group: "", Version: "v1", Resource: "services"},
	{Group: "", Version: "v1", Resource: "serviceaccounts"},
}

// claimKinds are objects by which the control plane says what it serves.
var claimKinds = []schema.GroupVersionResource{
	{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"},
	{Group: "gateway.networking.x-k8s.io", Version: "v1alpha1", Resource: "xmeshes"},
}

// deleteWaypoints removes the waypoints and the claims. The control plane must
// be gone: it puts them back. The users' Gateways stay, so that a later
// installation makes the same waypoints.
func deleteWaypoints(ctx context.Context, client dynamic.Interface, progress io.Writer) error {
	var errs []error
	for _, kind := range waypointKinds {
		errs = append(errs, deleteMatching(ctx, client.Resource(kind), waypointLabel, func(*unstructured.Unstructured) bool { return true }, progress))
	}
	for _, kind := range claimKinds {
		errs = append(errs, deleteMatching(ctx, client.Resource(kind), "", ofOurController, progress))
	}
	return errors.Join(errs...)
}

func ofOurController(obj *unstructured.Unstructured) bool {
	controller, _, _ := unstructured.NestedString(obj.Object, "spec", "controllerName")
	return controller == meshController
}

// deleteMatching deletes objects of one kind in every namespace. A kind that
// the cluster does not define has none.
func deleteMatching(ctx context.Context, kind dynamic.NamespaceableResourceInterface, label string, match func(*unstructured.Unstructured) bool, progress io.Writer) error {
	list, err := kind.List(ctx, metav1.ListOptions{LabelSelector: label})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for waypoints: %w", err)
	}
	background := metav1.DeletePropagationBackground
	var errs []error
	for i := range list.Items {
		obj := &list.Items[i]
		if !match(obj) {
			continue
		}
		err := kind.Namespace(obj.GetNamespace()).Delete(ctx, obj.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			errs = append(errs, fmt.Errorf("deleting %s: %w", name(obj), err))
		default:
			fmt.Fprintf(progress, "deleted %s\n", name(obj))
		}
	}
	return errors.Join(errs...)
}

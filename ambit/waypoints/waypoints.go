// Package waypoints makes, lists and removes the Gateways that are waypoints,
// and enrols namespaces.
//
// It owns what `ambit waypoint` writes and how it waits; it refuses to make pods:
// the control plane does, of a Gateway. Called by ambit/command.
package waypoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// Names of the user's API.
const (
	Class           = "istio-waypoint"
	labelFor        = "istio.io/waypoint-for"
	labelUse        = "istio.io/use-waypoint"
	labelUseFrom    = "istio.io/use-waypoint-namespace"
	labelMode       = "istio.io/dataplane-mode"
	labelRevision   = "istio.io/rev"
	tunnelPort      = 15008
	fieldManager    = "ambit-waypoint-cli"
	defaultTraffic  = "service"
	conditionServes = "Programmed"
)

var (
	gateways   = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
)

// Traffic are the values of --for.
var Traffic = []string{"service", "workload", "all", "none"}

// Wish is a waypoint to be.
type Wish struct {
	Namespace, Name string
	// For is one of Traffic; empty is left to the class, which means service.
	For string
	// Revision is Istio's; empty is none. This mesh has no revisions.
	Revision string
}

// Check says what is wrong with a wish.
func (w Wish) Check() error {
	switch {
	case w.Name == "none":
		return errors.New(`a waypoint cannot be named "none": the label istio.io/use-waypoint: none means that there is none`)
	case w.Name == "auto":
		return errors.New(`a waypoint cannot be named "auto": the label istio.io/use-waypoint: auto leaves it to the mesh`)
	case w.For != "" && !slices.Contains(Traffic, w.For):
		return fmt.Errorf("traffic %q: want one of %v", w.For, Traffic)
	}
	return nil
}

// Gateway is the object that makes it.
func (w Wish) Gateway() *unstructured.Unstructured {
	meta := map[string]any{"name": w.Name}
	if w.Namespace != "" {
		meta["namespace"] = w.Namespace
	}
	labels := map[string]any{}
	if w.For != "" {
		labels[labelFor] = w.For
	}
	if w.Revision != "" {
		labels[labelRevision] = w.Revision
	}
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": gateways.GroupVersion().String(), "kind": "Gateway", "metadata": meta,
		"spec": map[string]any{
			"gatewayClassName": Class,
			"listeners":        []any{map[string]any{"name": "mesh", "port": int64(tunnelPort), "protocol": "HBONE"}},
		},
	}}
}

// Client works on one cluster.
type Client struct{ API dynamic.Interface }

// Apply makes the waypoint, or makes it as it should be.
func (c Client) Apply(ctx context.Context, w Wish) error {
	if _, err := c.API.Resource(namespaces).Get(ctx, w.Namespace, metav1.GetOptions{}); err != nil {
		return fmt.Errorf("looking for namespace %s: %w", w.Namespace, err)
	}
	_, err := c.API.Resource(gateways).Namespace(w.Namespace).Apply(ctx, w.Name, w.Gateway(), metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if apierrors.IsNotFound(err) {
		return errors.New("the cluster has no Gateways (gateway.networking.k8s.io); ambit install brings the Gateway API")
	}
	if err != nil {
		return fmt.Errorf("applying Gateway %s/%s: %w", w.Namespace, w.Name, err)
	}
	return nil
}

// Enrolment is what enrolling a namespace found.
type Enrolment struct {
	// Outside says that the namespace is not in the mesh: its pods are reached
	// past every waypoint.
	Outside bool
}

// Enrol makes a namespace use the waypoint. One that uses another keeps it
// unless overwrite is set.
func (c Client) Enrol(ctx context.Context, w Wish, overwrite bool) (Enrolment, error) {
	ns, err := c.API.Resource(namespaces).Get(ctx, w.Namespace, metav1.GetOptions{})
	if err != nil {
		return Enrolment{}, fmt.Errorf("looking for namespace %s: %w", w.Namespace, err)
	}
	labels := ns.GetLabels()
	out := Enrolment{Outside: labels[labelMode] != "ambient"}
	used, from := labels[labelUse], labels[labelUseFrom]
	switch {
	case used == w.Name && (from == "" || from == w.Namespace):
		return out, nil
	case used != "" && !overwrite:
		return out, fmt.Errorf("namespace %s uses waypoint %s already (--overwrite replaces it)", w.Namespace, cmp.Or(from, w.Namespace)+"/"+used)
	}
	if labels == nil {
		labels = map[string]string{}
	}
	labels[labelUse] = w.Name
	delete(labels, labelUseFrom)
	ns.SetLabels(labels)
	if _, err := c.API.Resource(namespaces).Update(ctx, ns, metav1.UpdateOptions{FieldManager: fieldManager}); err != nil {
		return out, fmt.Errorf("labelling namespace %s: %w", w.Namespace, err)
	}
	return out, nil
}

// List are the waypoints of a namespace, or of all ("").
func (c Client) List(ctx context.Context, namespace string) ([]unstructured.Unstructured, error) {
	all, err := c.API.Resource(gateways).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing Gateways: %w", err)
	}
	out := slices.DeleteFunc(all.Items, func(g unstructured.Unstructured) bool {
		class, _, _ := unstructured.NestedString(g.Object, "spec", "gatewayClassName")
		return class != Class
	})
	slices.SortFunc(out, func(a, b unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return out, nil
}

// Delete removes a waypoint. A Gateway that is none is left alone.
func (c Client) Delete(ctx context.Context, namespace, name string) error {
	g, err := c.API.Resource(gateways).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no waypoint %s/%s (ambit waypoint list -n %s)", namespace, name, namespace)
	}
	if err != nil {
		return fmt.Errorf("looking for Gateway %s/%s: %w", namespace, name, err)
	}
	if class, _, _ := unstructured.NestedString(g.Object, "spec", "gatewayClassName"); class != Class {
		return fmt.Errorf("Gateway %s/%s is of class %s: it is no waypoint, and left alone", namespace, name, class)
	}
	uid := g.GetUID()
	err = c.API.Resource(gateways).Namespace(namespace).Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting Gateway %s/%s: %w", namespace, name, err)
	}
	return nil
}

// Users are the namespaces that name a waypoint by their label.
func (c Client) Users(ctx context.Context, namespace, name string) ([]string, error) {
	all, err := c.API.Resource(namespaces).List(ctx, metav1.ListOptions{LabelSelector: labelUse + "=" + name})
	if err != nil {
		return nil, fmt.Errorf("listing namespaces: %w", err)
	}
	var out []string
	for _, ns := range all.Items {
		if cmp.Or(ns.GetLabels()[labelUseFrom], ns.GetName()) == namespace {
			out = append(out, ns.GetName())
		}
	}
	slices.Sort(out)
	return out, nil
}

// Wait returns once the waypoint serves, or with what it says instead when ctx
// ends.
func (c Client) Wait(ctx context.Context, namespace, name string, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := "the control plane has said nothing about it: is it running? (ambit check)"
	for {
		g, err := c.API.Resource(gateways).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case err != nil && ctx.Err() == nil:
			return fmt.Errorf("looking for Gateway %s/%s: %w", namespace, name, err)
		case err == nil:
			served, says := Serves(g)
			if served {
				return nil
			}
			last = cmp.Or(says, last)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for waypoint %s/%s: %w: %s", namespace, name, context.Cause(ctx), last)
		}
	}
}

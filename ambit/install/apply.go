// Package install puts the mesh into a cluster and takes it out again. It owns
// the order of both and when each counts as done; it refuses to know what is
// in a manifest (manifests) and how to find a cluster (ambit/reach). Called by
// the ambit command.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

// fieldManager owns the fields that an installation sets.
const fieldManager = "ambit"

// Objects are the objects of rendered files, in their order.
func Objects(files []manifests.File) ([]*unstructured.Unstructured, error) {
	var objs []*unstructured.Unstructured
	for _, f := range files {
		if f.Name == "kustomization.yaml" {
			continue
		}
		for doc := range strings.SplitSeq("\n"+string(f.Body), "\n---\n") {
			obj := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(doc), &obj.Object); err != nil {
				return nil, fmt.Errorf("reading %s: %w", f.Name, err)
			}
			if len(obj.Object) > 0 {
				objs = append(objs, obj)
			}
		}
	}
	return objs, nil
}

// Apply applies the objects on the server's side, one line of progress each.
func Apply(ctx context.Context, c *reach.Cluster, objs []*unstructured.Unstructured, progress io.Writer) error {
	for _, obj := range objs {
		ri, err := c.Resource(obj)
		if err != nil {
			return err
		}
		if _, err := ri.Apply(ctx, obj.GetName(), obj, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
			return fmt.Errorf("applying %s: %w", name(obj), err)
		}
		fmt.Fprintf(progress, "applied %s\n", name(obj))
	}
	return nil
}

// Delete removes the objects in reverse order; what is absent is skipped.
func Delete(ctx context.Context, c *reach.Cluster, objs []*unstructured.Unstructured, progress io.Writer) error {
	var errs []error
	for i := len(objs) - 1; i >= 0; i-- {
		ri, err := c.Resource(objs[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		foreground := metav1.DeletePropagationForeground
		err = ri.Delete(ctx, objs[i].GetName(), metav1.DeleteOptions{PropagationPolicy: &foreground})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			errs = append(errs, fmt.Errorf("deleting %s: %w", name(objs[i]), err))
		default:
			fmt.Fprintf(progress, "deleted %s\n", name(objs[i]))
		}
	}
	return errors.Join(errs...)
}

// name is what users call the object.
func name(obj *unstructured.Unstructured) string {
	n := strings.ToLower(obj.GetKind()) + "/" + obj.GetName()
	if ns := obj.GetNamespace(); ns != "" {
		n += " in " + ns
	}
	return n
}

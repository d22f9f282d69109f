package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// write brings one object's conditions up to date, if it still exists.
func (c *Conditions) write(ctx context.Context, ref objects.Ref) error {
	c.mu.Lock()
	want, detail, seen := c.wanted[ref], c.details[ref], c.seen[ref]
	c.mu.Unlock()
	var err error
	if in, ok := listed[ref.Kind]; ok {
		err = c.writeParents(ctx, in, ref, want, seen)
	} else if other, ok := targets[ref.Kind]; ok {
		err = c.apply(ctx, other, ref, func(have *unstructured.Unstructured) (*unstructured.Unstructured, bool) {
			p, changed := other.patch(have, want, time.Now())
			if ref.Kind == objects.KindServiceEntry && addresses(p, have, detail) {
				changed = true
			}
			return p, changed
		})
	} else if whole, ok := detailed[ref.Kind]; ok {
		err = c.apply(ctx, whole, ref, func(have *unstructured.Unstructured) (*unstructured.Unstructured, bool) {
			return whole.status(have, want, detail, time.Now())
		})
	} else {
		return fmt.Errorf("conditions of a %s are not written", ref.Kind)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the status of %s: %w", ref, err)
	}
	return nil
}

// apply writes conditions whose list is merged by their owners.
func (c *Conditions) apply(ctx context.Context, target target, ref objects.Ref, patch func(*unstructured.Unstructured) (*unstructured.Unstructured, bool)) error {
	api := c.client.Resource(target.resource).Namespace(ref.Key.Namespace)
	have, err := api.Get(ctx, ref.Key.Name, getOptions)
	if err != nil {
		return err
	}
	next, changed := patch(have)
	if changed {
		_, err = api.ApplyStatus(ctx, ref.Key.Name, next, target.applyOptions())
	}
	return err
}

// writeParents replaces a list of parents, which the API server does
// not merge: so it is written only over the very version that was read. The
// watched one is tried first, which saves reading it.
func (c *Conditions) writeParents(ctx context.Context, target listTarget, ref objects.Ref, want []translate.Condition, seen any) error {
	have, err := whole(seen)
	if err != nil {
		return err
	}
	api := c.client.Resource(target.resource).Namespace(ref.Key.Namespace)
	for {
		read := have == nil || !onlyOurs(target.list, have) // what another wrote may have fields that our types have not
		if read {
			if have, err = api.Get(ctx, ref.Key.Name, getOptions); err != nil {
				return err
			}
		}
		next, changed := parentsOf(target.list, have, want, time.Now())
		if !changed {
			return nil
		}
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"uid": have.GetUID(), "resourceVersion": have.GetResourceVersion()},
			"status":   map[string]any{target.list.field: next},
		})
		if err != nil {
			return err
		}
		_, err = api.Patch(ctx, ref.Key.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: target.manager}, "status")
		if read || !apierrors.IsConflict(err) {
			return err
		}
		have = nil
	}
}

// whole is a watched object in the form of the API; nil for none.
func whole(seen any) (*unstructured.Unstructured, error) {
	if seen == nil {
		return nil, nil
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(seen)
	if err != nil {
		return nil, err
	}
	return &unstructured.Unstructured{Object: fields}, nil
}

package reach

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
)

// Resource is the client for an object's kind and namespace.
func (c *Cluster) Resource(obj *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	mapping, err := c.mapping(obj)
	if err != nil {
		return nil, err
	}
	ri := c.Dynamic.Resource(mapping.Resource)
	if ns := obj.GetNamespace(); ns != "" {
		return ri.Namespace(ns), nil
	}
	return ri, nil
}

// Namespaced reports whether objects of obj's kind are in namespaces.
func (c *Cluster) Namespaced(obj *unstructured.Unstructured) (bool, error) {
	mapping, err := c.mapping(obj)
	if err != nil {
		return false, err
	}
	return mapping.Scope.Name() == meta.RESTScopeNameNamespace, nil
}

func (c *Cluster) mapping(obj *unstructured.Unstructured) (*meta.RESTMapping, error) {
	gvk := obj.GroupVersionKind()
	mapping, err := c.Mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		// The kind may have been defined since the cluster was last asked.
		c.Mapper.Reset()
		mapping, err = c.Mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("the cluster does not serve %s: %w", gvk.Kind, err)
	}
	return mapping, nil
}

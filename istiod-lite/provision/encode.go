package provision

import (
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// encode gives the form in which objects are applied: only what is set, because
// whoever applies a field owns it.
func encode(o any) *unstructured.Unstructured {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		panic("encoding an object of our own making: " + err.Error())
	}
	delete(m, "status")
	prune(m)
	return &unstructured.Unstructured{Object: m}
}

// prune drops null fields.
func prune(m map[string]any) {
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	for _, v := range m {
		if inner, ok := v.(map[string]any); ok {
			prune(inner)
		}
	}
}

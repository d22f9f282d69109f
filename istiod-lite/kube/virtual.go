package kube

import (
	"reflect"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// seenEntry sees that a ServiceEntry has the virtual addresses that it is to have,
// and not those that somebody else put into its status.
func (c *Conditions) seenEntry(ref objects.Ref, se *networking.ServiceEntry) {
	var has []translate.VirtualAddress
	for _, a := range se.Status.GetAddresses() {
		has = append(has, translate.VirtualAddress{Host: a.GetHost(), Value: a.GetValue()})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var want []translate.VirtualAddress
	if d := c.details[ref]; d != nil {
		want = d.Virtual
	}
	if c.queue != nil && c.told && !slices.Equal(has, want) {
		c.queue.Add(ref)
	}
}

// addresses adds the virtual addresses of a ServiceEntry to what is applied, and
// says whether they are others than those there. Those that nobody is to have any
// longer go by not being applied.
func addresses(p, have *unstructured.Unstructured, d *translate.Detail) bool {
	list := []any{}
	if d != nil {
		for _, a := range d.Virtual {
			list = append(list, map[string]any{"value": a.Value, "host": a.Host})
		}
	}
	was, _, _ := unstructured.NestedSlice(have.Object, "status", "addresses")
	if len(list) == 0 {
		return len(was) > 0
	}
	status, _ := p.Object["status"].(map[string]any)
	if status == nil {
		status = map[string]any{}
	}
	status["addresses"] = list
	p.Object["status"] = status
	return !reflect.DeepEqual(was, list)
}

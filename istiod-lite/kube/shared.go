package kube

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stripper strips objects and lets them share what they have alike: the pods of
// a Deployment differ in their names and addresses only. Nothing that it gives
// is ever changed in place, as is so for all objects of a Set.
type stripper struct {
	mu           sync.Mutex
	all          map[string]string // texts by themselves
	pointers     map[string]*string
	labelsOf     map[string]map[string]string
	ownersOf     map[string][]metav1.OwnerReference
	containersOf map[string][]corev1.Container
}

func newStripper() *stripper {
	return &stripper{
		all: map[string]string{}, pointers: map[string]*string{}, labelsOf: map[string]map[string]string{},
		ownersOf: map[string][]metav1.OwnerReference{}, containersOf: map[string][]corev1.Container{},
	}
}

// mostShared bounds each kind of what is shared. It is forgotten then: what
// comes later is shared among itself, and what is gone is not kept.
const mostShared = 8192

// shared is the value that was first given for a text.
func shared[V any](m map[string]V, text string, v V) V {
	if old, ok := m[text]; ok {
		return old
	}
	if len(m) >= mostShared {
		clear(m)
	}
	m[text] = v
	return v
}

func (s *stripper) text(t string) string { return shared(s.all, t, t) }

func (s *stripper) pointer(t *string) *string {
	if t == nil {
		return nil
	}
	return shared(s.pointers, *t, t)
}

// texts shares a map of labels or annotations.
func (s *stripper) texts(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(k + "\x00" + m[k] + "\x00")
	}
	return shared(s.labelsOf, b.String(), m)
}

// textOf tells values apart.
func textOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // parts of API objects are JSON
	}
	return string(b)
}

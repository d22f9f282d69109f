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
	all          shared[string] // texts by themselves
	pointers     shared[*string]
	labelsOf     shared[map[string]string]
	ownersOf     shared[[]metav1.OwnerReference]
	containersOf shared[[]corev1.Container]
}

func newStripper() *stripper { return &stripper{} }

// sharedAtOnce bounds how many values of a kind are remembered without having
// been asked for again. Who is read together is alike mostly, since objects are
// listed by their names; each object that came and went would leave its labels
// here otherwise.
const sharedAtOnce = 512

// shared are values by texts that tell them apart, in two generations: what
// nobody asked for while the young one filled up is forgotten.
type shared[V any] struct{ young, old map[string]V }

// of is the value that was first given for a text.
func (s *shared[V]) of(text string, v V) V {
	if first, ok := s.young[text]; ok {
		return first
	}
	if first, ok := s.old[text]; ok {
		v = first
	}
	if len(s.young) == sharedAtOnce || s.young == nil {
		s.young, s.old = map[string]V{}, s.young
	}
	s.young[text] = v
	return v
}

func (s *stripper) text(t string) string { return s.all.of(t, t) }

func (s *stripper) pointer(t *string) *string {
	if t == nil {
		return nil
	}
	return s.pointers.of(*t, t)
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
	return s.labelsOf.of(b.String(), m)
}

// textOf tells values apart.
func textOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // parts of API objects are JSON
	}
	return string(b)
}

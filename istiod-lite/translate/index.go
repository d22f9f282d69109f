package translate

import (
	"maps"
	"slices"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// matches reports whether labels satisfy a selector. An empty selector is the
// caller's matter.
func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// selectors finds the selectors of a namespace that match given labels without
// trying each: every selector is kept under one of its pairs.
type selectors map[pair]map[objects.Key]map[string]string

type pair struct{ namespace, key, value string }

func pairOf(namespace string, selector map[string]string) pair {
	k := slices.Min(slices.Collect(maps.Keys(selector)))
	return pair{namespace, k, selector[k]}
}

func (x selectors) put(k objects.Key, selector map[string]string) {
	if len(selector) == 0 {
		return
	}
	p := pairOf(k.Namespace, selector)
	if x[p] == nil {
		x[p] = map[objects.Key]map[string]string{}
	}
	x[p][k] = selector
}

func (x selectors) del(k objects.Key, selector map[string]string) {
	if len(selector) == 0 {
		return
	}
	p := pairOf(k.Namespace, selector)
	delete(x[p], k)
	if len(x[p]) == 0 {
		delete(x, p)
	}
}

// find lists the owners, in a namespace, of selectors that match.
func (x selectors) find(namespace string, labels map[string]string) []objects.Key {
	var found []objects.Key
	for k, v := range labels {
		for owner, selector := range x[pair{namespace, k, v}] {
			if matches(selector, labels) {
				found = append(found, owner)
			}
		}
	}
	return found
}

// groups are sets of keys under a name, without empty ones.
type groups[N comparable] = sets[N, objects.Key]

// sets are sets under a name, without empty ones.
type sets[N, E comparable] map[N]map[E]bool

func (g sets[N, E]) put(name N, k E) {
	if g[name] == nil {
		g[name] = map[E]bool{}
	}
	g[name][k] = true
}

func (g sets[N, E]) del(name N, k E) {
	delete(g[name], k)
	if len(g[name]) == 0 {
		delete(g, name)
	}
}

// lists are short lists without doubles under a name. A set for each of many
// names with one element would be ten times as large.
type lists[N, E comparable] map[N][]E

func (l lists[N, E]) put(name N, e E) {
	if !slices.Contains(l[name], e) {
		l[name] = append(l[name], e)
	}
}

func (l lists[N, E]) del(name N, e E) {
	l[name] = slices.DeleteFunc(l[name], func(o E) bool { return o == e })
	if len(l[name]) == 0 {
		delete(l, name)
	}
}

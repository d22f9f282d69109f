package table

import (
	"cmp"
	"maps"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
)

// guard is a policy, or what is known of one that could not be understood: its
// key and the error. That one guards everything.
type guard struct {
	policy *mesh.Policy
	err    error
}

// guards are the policies by what they guard.
type guards struct {
	// everything is what this waypoint's and every waypoint's policies guard.
	everything policy.Set
	// services are those with policies of their own, with everything's too.
	services map[mesh.ServiceKey]policy.Set
}

// tokens are the authentications, likewise.
type tokens struct {
	everything []*mesh.Authentication
	services   map[mesh.ServiceKey][]*mesh.Authentication
}

// sharePolicies sorts policies by what they guard at the waypoint self.
func sharePolicies(all map[mesh.PolicyKey]guard, self mesh.ServiceKey) guards {
	list := sortedByKey(all)
	reach := reachOf(list, self, func(g guard) []mesh.Target { return g.policy.Targets })
	g := guards{everything: setOf(reach.everything), services: map[mesh.ServiceKey]policy.Set{}}
	for k, own := range reach.services {
		g.services[k] = setOf(own)
	}
	return g
}

func setOf(list []guard) policy.Set {
	var set policy.Set
	for _, g := range list {
		if g.err != nil {
			set.Unknown = append(set.Unknown, g.policy.Key)
		} else {
			set.Policies = append(set.Policies, g.policy)
		}
	}
	return set
}

// shareTokens sorts authentications by whose requests they look at.
func shareTokens(all map[mesh.PolicyKey]*mesh.Authentication, self mesh.ServiceKey) tokens {
	reach := reachOf(sortedByKey(all), self, func(a *mesh.Authentication) []mesh.Target { return a.Targets })
	return tokens{everything: reach.everything, services: reach.services}
}

func sortedByKey[T any](all map[mesh.PolicyKey]T) []T {
	keys := slices.SortedFunc(maps.Keys(all), func(a, b mesh.PolicyKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	out := make([]T, 0, len(keys))
	for _, k := range keys {
		out = append(out, all[k])
	}
	return out
}

// reach is what applies to everything, and to single services beside that.
type reach[T any] struct {
	everything []T
	services   map[mesh.ServiceKey][]T
}

func reachOf[T any](list []T, self mesh.ServiceKey, targets func(T) []mesh.Target) reach[T] {
	r := reach[T]{services: map[mesh.ServiceKey][]T{}}
	wide := make([]bool, len(list))
	for i, x := range list {
		for _, t := range targets(x) {
			switch {
			case t.Class || t.Gateway == self && self != mesh.ServiceKey{}:
				wide[i] = true
			case t.Service != mesh.ServiceKey{}:
				r.services[t.Service] = nil
			}
		}
		if wide[i] {
			r.everything = append(r.everything, x)
		}
	}
	for k := range r.services {
		for i, x := range list {
			if wide[i] || slices.Contains(targets(x), mesh.Target{Service: k}) {
				r.services[k] = append(r.services[k], x)
			}
		}
	}
	return r
}

package view

import (
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
)

// guard is a policy, or what is known of one that could not be understood:
// its key and scope, and the error.
type guard struct {
	policy *mesh.Policy
	err    error
}

// Policies are those that apply to connections to w: the global ones, those of
// its namespace, and those it lists. What it lists and nobody has sent, and
// what was sent and could not be understood, is Unknown, which closes.
func (v *View) Policies(w *mesh.Workload) policy.Set {
	var set policy.Set
	for _, scope := range [2]string{"", w.Namespace} {
		for _, g := range v.byScope.get(scope) {
			add(&set, g)
		}
	}
	for _, k := range w.Policies {
		g := v.policies.get(k)
		switch {
		case g.policy == nil:
			set.Unknown = append(set.Unknown, k)
		case g.policy.Scope == mesh.ScopeSelector || !covers(g.policy, w):
			add(&set, g)
		}
	}
	return set
}

func add(set *policy.Set, g guard) {
	switch {
	case g.err == nil:
		set.Policies = append(set.Policies, g.policy)
	case !g.policy.DryRun:
		set.Unknown = append(set.Unknown, g.policy.Key)
	}
}

// covers reports whether a policy applies to w without being listed.
func covers(p *mesh.Policy, w *mesh.Workload) bool {
	return p.Scope == mesh.ScopeGlobal || p.Scope == mesh.ScopeNamespace && p.Key.Namespace == w.Namespace
}

// Policy finds a policy by key. With an error, the policy was sent and could
// not be understood: what it guards is closed.
func (v *View) Policy(k mesh.PolicyKey) (*mesh.Policy, error) {
	g := v.policies.get(k)
	return g.policy, g.err
}

// AllPolicies lists every policy that is understood, by key.
func (v *View) AllPolicies() []*mesh.Policy {
	var out []*mesh.Policy
	for _, g := range v.policies.all {
		if g.err == nil {
			out = append(out, g.policy)
		}
	}
	slices.SortFunc(out, func(a, b *mesh.Policy) int { return compare(a.Key.String(), b.Key.String()) })
	return out
}

// scopeOf is the index a policy is found under, if under any.
func scopeOf(p *mesh.Policy) (string, bool) {
	switch p.Scope {
	case mesh.ScopeGlobal:
		return "", true
	case mesh.ScopeNamespace:
		return p.Key.Namespace, true
	case mesh.ScopeSelector:
	}
	return "", false
}

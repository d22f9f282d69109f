package policy

import (
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// matchRules is the index of the first rule that matches, or -1.
func matchRules(p *mesh.Policy, q *Request) int {
	t := trial{q: q, widen: p.Action != mesh.ActionAllow}
	for i := range p.Rules {
		if t.rule(&p.Rules[i]) {
			return i
		}
	}
	return -1
}

// trial is one policy tried on one request.
type trial struct {
	q *Request
	// widen is set for every action but ALLOW: what cannot be told counts as a
	// match then, since a match closes, asks or notes.
	widen bool
	// set and ok are of the match being tried: whether it has an attribute, and
	// whether all of them hold so far.
	set, ok bool
}

func (t *trial) rule(r *mesh.Rule) bool {
	for i := range r.Clauses {
		if !t.clause(&r.Clauses[i]) {
			return false
		}
	}
	return true
}

func (t *trial) clause(c *mesh.Clause) bool {
	for i := range c.Matches {
		if t.match(&c.Matches[i]) {
			return true
		}
	}
	return len(c.Matches) == 0
}

// match is true when m has an attribute and all of its attributes hold.
func (t *trial) match(m *mesh.Match) bool {
	c := &t.q.Connection
	account := mesh.ServiceAccount{Namespace: c.Source.Namespace, Name: c.Source.ServiceAccount}
	// Without an identity no principal and no account matches, not even by an
	// empty text; the namespace is compared as "" (dataplane spec 5.3).
	known := !c.Source.IsZero()
	t.set, t.ok = false, true
	demand(t, m.Principals, m.NotPrincipals, func(x mesh.StringMatch) bool { return known && matchesPrincipal(x, c.Source) })
	demand(t, m.Namespaces, m.NotNamespaces, func(x mesh.StringMatch) bool { return x.Matches(c.Source.Namespace) })
	demand(t, m.ServiceAccounts, m.NotServiceAccounts, func(x mesh.ServiceAccount) bool { return known && x == account })
	demand(t, m.SourceIPs, m.NotSourceIPs, func(x netip.Prefix) bool { return x.Contains(c.SourceIP) })
	demand(t, m.DestinationIPs, m.NotDestinationIPs, func(x netip.Prefix) bool { return x.Contains(c.Destination.Addr()) })
	demand(t, m.DestinationPorts, m.NotDestinationPorts, func(x uint16) bool { return x == c.Destination.Port() })
	if m.HTTP != nil && t.ok {
		t.http(m.HTTP)
	}
	return t.set && t.ok
}

// demand folds one attribute's two lists: set when either is non-empty, ok
// cleared when the positive list has no match or the negative one has any.
func demand[T any](t *trial, want, not []T, match func(T) bool) {
	if len(want) == 0 && len(not) == 0 {
		return
	}
	t.set = true
	t.ok = t.ok && (len(want) == 0 || slices.ContainsFunc(want, match)) && !slices.ContainsFunc(not, match)
}

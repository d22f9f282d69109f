package snapshot

import (
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
)

// Diff is the steps that take a ztunnel from old, which may be nil, to new: those
// of the server (xds.Order), whatever the proxy.
func Diff(old, new *Ztunnel) []xds.Update {
	if old == nil {
		old = &Ztunnel{}
	}
	return xds.Order(old.Types, new.Types, xds.ServerConfig{Late: Late, Moves: Moves, StandIns: StandIns, Guards: Guards})
}

// Moves tells under which replaced policies a workload comes and which it leaves:
// one that has named pods, and still does, names it no longer, and has become
// another at once. A workload that trusts fewer names of the trust domain leaves
// all, as policies do not speak of those names any more.
func Moves(guards map[string]xds.Replaced, old, new *xds.Resource) (m xds.Move) {
	if len(guards) == 0 {
		return m
	}
	was, _, err := wire.UnmarshalAddress(old.Body)
	if err != nil || was == nil {
		return m
	}
	is := &mesh.Workload{}
	if new != nil {
		if is, _, err = wire.UnmarshalAddress(new.Body); err != nil || is == nil {
			return m
		}
		if slices.ContainsFunc(was.Settings.TrustDomainAliases, func(alias string) bool { return !slices.Contains(is.Settings.TrustDomainAliases, alias) }) {
			return xds.Move{LeavesAll: true}
		}
	}
	for _, k := range was.Policies {
		g, replaced := guards[k.String()]
		if replaced && !slices.Contains(is.Policies, k) && bySelector(g.Old) && bySelector(g.New) {
			m.Leaves = append(m.Leaves, k.String())
		}
	}
	for _, k := range is.Policies {
		if _, replaced := guards[k.String()]; replaced && !slices.Contains(was.Policies, k) {
			m.Comes = append(m.Comes, k.String())
		}
	}
	return m
}

// StandIns makes copies of policies under names that no policy can have, and of
// workloads that name the copies instead.
func StandIns(policies, workloads []*xds.Resource) (copies, standing []*xds.Resource) {
	instead := map[mesh.PolicyKey]mesh.PolicyKey{}
	for _, r := range policies {
		p, err := wire.UnmarshalPolicy(r.Name, r.Body)
		if err != nil {
			continue
		}
		before := p.Key
		p.Key.Name += "~before"
		instead[before] = p.Key
		copies = append(copies, versioned(policy(p)))
	}
	for _, r := range workloads {
		w, _, err := wire.UnmarshalAddress(r.Body)
		if err != nil || w == nil {
			continue
		}
		for i, k := range w.Policies {
			if other, ok := instead[k]; ok {
				w.Policies[i] = other
			}
		}
		standing = append(standing, versioned(workload(w)))
	}
	return copies, standing
}

func versioned(r *xds.Resource) *xds.Resource {
	r.Version = wire.Version(r.Body)
	return r
}

// Late reports whether a policy's change must wait for the workloads: one that
// applied to a whole namespace and now only to those that name it would guard
// nobody until they do.
func Late(typ string, old, new *xds.Resource) bool {
	return typ == xds.TypeAuthorization && !bySelector(old) && bySelector(new)
}

func bySelector(r *xds.Resource) bool {
	p, err := wire.UnmarshalPolicy(r.Name, r.Body)
	return err == nil && p.Scope == mesh.ScopeSelector
}

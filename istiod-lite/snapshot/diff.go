package snapshot

import (
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
)

// Diff is the steps that take a ztunnel from old, which may be nil, to new:
// policies before the workloads that name them, policies that come to apply by
// name only after those workloads, and removals of policies last. The first
// state has both types even if empty.
func Diff(old, new *Ztunnel) []xds.Update {
	if old == nil {
		old = &Ztunnel{}
	}
	policies, late, gone := diff(xds.TypeAuthorization, old, new)
	addresses, _, left := diff(xds.TypeAddress, old, new)
	steps := []xds.Update{
		{Type: xds.TypeAuthorization, Upserts: policies},
		{Type: xds.TypeAddress, Upserts: addresses, Removed: left},
		{Type: xds.TypeAuthorization, Upserts: late, Removed: gone},
	}
	if old.Types == nil {
		return steps[:2]
	}
	return slices.DeleteFunc(steps, func(u xds.Update) bool { return len(u.Upserts)+len(u.Removed) == 0 })
}

func diff(typ string, old, new *Ztunnel) (now, late []xds.Resource, removed []string) {
	for name, n := range new.Types[typ] {
		o := old.Types[typ][name]
		switch {
		case o == n || o != nil && o.Version == n.Version:
		case o != nil && Late(typ, o, n):
			late = append(late, *n)
		default:
			now = append(now, *n)
		}
	}
	for name := range old.Types[typ] {
		if new.Types[typ][name] == nil {
			removed = append(removed, name)
		}
	}
	byName := func(a, b xds.Resource) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(now, byName)
	slices.SortFunc(late, byName)
	slices.Sort(removed)
	return now, late, removed
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

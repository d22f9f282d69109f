package xds

import (
	"maps"
	"slices"
)

// Move is what becomes of an address with regard to guards that are replaced in
// the same push: the names of those that it comes under, and of those that it
// leaves, which may be all.
type Move struct {
	Comes, Leaves []string
	LeavesAll     bool
}

// Turn is a part of a push: guards, then addresses, by name.
type Turn struct{ Guards, Addresses []string }

// Turns orders replaced guards and the addresses that leave some of them. An
// address goes after the guards that it comes under, and before those that it
// leaves: it is judged neither by what one has been, nor by what another becomes,
// of which nothing is said to it. What is in no turn may follow, guards first;
// nothing is in one if no address leaves a guard. Addresses that change places, each
// coming under what another leaves, have no such order: they are stuck, and so
// are guards that they leave.
func Turns(guards []string, moves map[string]Move) (turns []Turn, stuck []string) {
	waiting := map[string]bool{}
	for _, g := range guards {
		waiting[g] = true
	}
	pending := maps.Clone(moves)
	maps.DeleteFunc(pending, func(_ string, m Move) bool { return len(m.Leaves) == 0 && !m.LeavesAll })
	for len(pending) > 0 {
		var t Turn
		left, all := leftBy(pending)
		for _, g := range slices.Sorted(maps.Keys(waiting)) {
			if !all && !left[g] {
				t.Guards = append(t.Guards, g)
				delete(waiting, g)
			}
		}
		for _, a := range slices.Sorted(maps.Keys(pending)) {
			if !slices.ContainsFunc(pending[a].Comes, func(g string) bool { return waiting[g] }) {
				t.Addresses = append(t.Addresses, a)
			}
		}
		for _, a := range t.Addresses {
			delete(pending, a)
		}
		if len(t.Guards)+len(t.Addresses) == 0 {
			break
		}
		turns = append(turns, t)
	}
	return turns, slices.Sorted(maps.Keys(pending))
}

// leftBy are the guards that addresses leave; all if one leaves all.
func leftBy(moves map[string]Move) (left map[string]bool, all bool) {
	left = map[string]bool{}
	for _, m := range moves {
		all = all || m.LeavesAll
		for _, g := range m.Leaves {
			left[g] = true
		}
	}
	return left, all
}

// Left are the guards that those addresses leave, sorted.
func Left(addresses []string, moves map[string]Move) []string {
	var all []string
	for _, a := range addresses {
		all = append(all, moves[a].Leaves...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

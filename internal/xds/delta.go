package xds

import (
	"slices"
	"strings"
	"sync"
)

// Delta is what takes a client from what it holds to what it should hold.
type Delta struct {
	Upserts []*Resource
	Removed []string
	// late are upserts that must wait until resources of other types arrived.
	late []*Resource
}

func (d *Delta) empty() bool { return len(d.Upserts)+len(d.late)+len(d.Removed) == 0 }

// LateFunc says whether replacing old by new must wait until the other types'
// upserts arrived; see ServerConfig.Late. The old one has no body if all that
// is known is that the client has some version of it.
type LateFunc func(typ string, old, new *Resource) bool

// diff compares two immutable sets.
func diff(typ string, old, new Resources, late LateFunc) *Delta {
	d := &Delta{}
	for name, n := range new {
		o := old[name]
		switch {
		case o == n || o != nil && o.Version == n.Version && n.Version != "":
		case o != nil && late != nil && late(typ, o, n):
			d.late = append(d.late, n)
		default:
			d.Upserts = append(d.Upserts, n)
		}
	}
	for name := range old {
		if new[name] == nil {
			d.Removed = append(d.Removed, name)
		}
	}
	return d.sorted()
}

// diffVersions compares what a client says it holds with a set. A version that
// is empty equals nothing, so an unversioned resource is always sent again.
func diffVersions(typ string, held map[string]string, new Resources, again map[string]bool, late LateFunc) *Delta {
	d := &Delta{}
	for name, n := range new {
		v, has := held[name]
		switch {
		case has && v != "" && v == n.Version && !again[name]:
		case has && late != nil && late(typ, &Resource{Name: name, Version: v}, n):
			d.late = append(d.late, n)
		default:
			d.Upserts = append(d.Upserts, n)
		}
	}
	for name := range held {
		if new[name] == nil {
			d.Removed = append(d.Removed, name)
		}
	}
	return d.sorted()
}

// sorted makes responses reproducible.
func (d *Delta) sorted() *Delta {
	byName := func(a, b *Resource) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(d.Upserts, byName)
	slices.SortFunc(d.late, byName)
	slices.Sort(d.Removed)
	return d
}

// differ remembers the last deltas, since many clients take the same step.
type differ struct {
	late LateFunc

	mu   sync.Mutex // held while computing: the others wait for the result
	last []step
}

// step is one remembered delta; pointers identify snapshots.
type step struct {
	typ      string
	old, new *Snapshot
	delta    *Delta
}

// remembered bounds the steps: the types times a few generations that slow
// clients may lag behind.
const remembered = 12

func (d *differ) delta(typ string, old, new *Snapshot) *Delta {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.last {
		if s.typ == typ && s.old == old && s.new == new {
			return s.delta
		}
	}
	s := step{typ: typ, old: old, new: new, delta: diff(typ, old.Types[typ], new.Types[typ], d.late)}
	d.last = append(d.last, s)
	if len(d.last) > remembered {
		d.last = slices.Delete(d.last, 0, 1)
	}
	return s.delta
}

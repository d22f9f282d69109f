package xds

import (
	"reflect"
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
	// shared is set if many clients take this step, so that its messages are
	// worth keeping.
	shared bool
	// was is what upserts replace and what is removed, where its body is known.
	was map[string]*Resource
}

func (d *Delta) empty() bool { return len(d.Upserts)+len(d.late)+len(d.Removed) == 0 }

// LateFunc says whether replacing old by new must wait until the other types'
// upserts arrived; see ServerConfig.Late. The old one has no body if all that
// is known is that the client has some version of it.
type LateFunc func(typ string, old, new *Resource) bool

// Replaced is a resource that another takes the place of.
type Replaced struct{ Old, New *Resource }

// MoveFunc says what becomes of an address, which goes if new is nil, with regard
// to guards, by name, that are replaced; see ServerConfig.Moves.
type MoveFunc func(guards map[string]Replaced, old, new *Resource) Move

// StandInFunc makes copies of guards, as they were, under other names, and of
// addresses, as they were, that name the copies in the guards' place: for
// those that are stuck (see Turns) while the guards are replaced.
type StandInFunc func(guards, addresses []*Resource) (copies, standing []*Resource)

// diff compares two immutable sets.
func diff(typ string, old, new Resources, late LateFunc) *Delta {
	d := &Delta{was: map[string]*Resource{}}
	for name, n := range new {
		o := old[name]
		switch {
		case o == n || o != nil && o.Version == n.Version && n.Version != "":
		case o != nil && late != nil && late(typ, o, n):
			d.late = append(d.late, n)
		default:
			d.Upserts = append(d.Upserts, n)
			if o != nil {
				d.was[name] = o
			}
		}
	}
	for name := range old {
		if new[name] == nil {
			d.Removed = append(d.Removed, name)
			d.was[name] = old[name]
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

// step is one remembered delta. Sets are told apart by identity.
type step struct {
	typ      string
	old, new Resources
	delta    *Delta
}

// remembered bounds the steps: the types times a few generations that slow
// clients may lag behind.
const remembered = 12

// delta is the step from one set, nil for a client that has nothing, to another.
func (d *differ) delta(typ string, old, new Resources) *Delta {
	if identical(old, new) {
		return &Delta{shared: true}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.last {
		if s.typ == typ && identical(s.old, old) && identical(s.new, new) {
			return s.delta
		}
	}
	s := step{typ: typ, old: old, new: new, delta: diff(typ, old, new, d.late)}
	s.delta.shared = true
	// Every client goes to the newest set: steps to another one are over, and
	// would keep it from being collected.
	d.last = slices.DeleteFunc(d.last, func(o step) bool { return o.typ == typ && identical(o.old, old) })
	d.last = append(d.last, s)
	if len(d.last) > remembered {
		d.last = slices.Delete(d.last, 0, 1)
	}
	return s.delta
}

// forget drops the steps; those that are still needed are computed again.
func (d *differ) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = nil
}

// identical reports whether two sets are one: what did not change keeps its map.
func identical(a, b Resources) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

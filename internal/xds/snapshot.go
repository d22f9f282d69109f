package xds

import (
	"slices"
	"sync"
	"time"
)

// Resources are one type's resources by name.
type Resources map[string]*Resource

// Snapshot is everything one client may hold. It is immutable once handed to
// a Server; what did not change keeps its *Resource.
type Snapshot struct {
	// Generation grows with every snapshot of a source.
	Generation uint64
	// Changed is when the earliest change in it was noticed; zero if unknown.
	Changed time.Time
	// Types are the resources by type URL; an absent type has none.
	Types map[string]Resources

	indexing sync.Once
	indexes  map[string]*keyIndex
}

// keyIndex finds resources by what is not their name. Only clients that
// subscribe on demand need it, so it is made at first use.
type keyIndex struct {
	byAlias    map[string][]*Resource
	byFollowed map[string][]*Resource
}

// NodeKey is what a Resource follows to reach every on-demand client of a node.
func NodeKey(node string) string { return "node:" + node }

func (s *Snapshot) index(typ string) *keyIndex {
	s.indexing.Do(func() {
		s.indexes = make(map[string]*keyIndex, len(s.Types))
		for typ, rs := range s.Types {
			s.indexes[typ] = indexOf(rs)
		}
	})
	if i := s.indexes[typ]; i != nil {
		return i
	}
	return &keyIndex{}
}

func indexOf(rs Resources) *keyIndex {
	i := &keyIndex{byAlias: map[string][]*Resource{}, byFollowed: map[string][]*Resource{}}
	for _, r := range rs {
		for _, a := range r.Aliases {
			i.byAlias[a] = append(i.byAlias[a], r)
		}
		for _, f := range r.Follows {
			i.byFollowed[f] = append(i.byFollowed[f], r)
		}
	}
	return i
}

// resolve finds what a client that asked for the keys must hold: the resources
// of those names or aliases, what follows them, and what follows the client's
// node. Keys that name nothing are returned too.
func (s *Snapshot) resolve(typ, node string, keys map[string]bool) (want Resources, missing []string) {
	idx, all := s.index(typ), s.Types[typ]
	want = Resources{}
	add := func(r *Resource) {
		want[r.Name] = r
		for _, f := range idx.byFollowed[r.Name] {
			want[f.Name] = f
		}
	}
	for key := range keys {
		found := idx.byAlias[key]
		if r := all[key]; r != nil {
			found = append(slices.Clip(found), r)
		}
		if len(found) == 0 {
			missing = append(missing, key)
		}
		for _, r := range found {
			add(r)
		}
	}
	if node != "" {
		for _, r := range idx.byFollowed[NodeKey(node)] {
			want[r.Name] = r
		}
	}
	slices.Sort(missing)
	return want, missing
}

package balance

import (
	"cmp"
	"slices"
	"strconv"
)

// ring is a consistent hash: points of members on a circle, more for more
// capacity. It is sorted by hash.
type ring struct {
	points  []point
	members []candidate
}

type point struct {
	hash   uint64
	member int32
}

// A member of the least capacity has so many points, whoever else is there:
// keys move only to or from a member that comes or goes. Where members are
// many, fewer points spread as well.
const (
	pointsEach = 128
	pointsMany = 32
	membersFew = 256
	// heaviest bounds the points of one member.
	heaviest = 64
)

func newRing(members []candidate) *ring {
	each, least := pointsEach, members[0].workload.Capacity
	if len(members) > membersFew {
		each = pointsMany
	}
	for i := range members {
		least = min(least, members[i].workload.Capacity)
	}
	r := &ring{members: members}
	for i := range members {
		w := members[i].workload
		for j := range each * int(min(w.Capacity/least, heaviest)) {
			r.points = append(r.points, point{hash(w.UID + "#" + strconv.Itoa(j)), int32(i)})
		}
	}
	slices.SortFunc(r.points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.member, b.member))
	})
	return r
}

// walk visits members from a key's place on, until accept takes one. It visits
// some more than once.
func (r *ring) walk(h uint64, accept func(*candidate) bool) *candidate {
	start, _ := slices.BinarySearchFunc(r.points, h, func(p point, h uint64) int { return cmp.Compare(p.hash, h) })
	last := int32(-1)
	for i := range r.points {
		p := r.points[(start+i)%len(r.points)]
		if p.member == last {
			continue
		}
		last = p.member
		if c := &r.members[p.member]; accept(c) {
			return c
		}
	}
	return nil
}

// hash is FNV-1a with a finish that spreads short strings: waypoints must
// agree on it, so it has no seed.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finish of SplitMix64.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

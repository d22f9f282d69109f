package balance

import (
	"math/rand/v2"
	"slices"
	"sync"
)

// seal computes what choosing needs, once all members are there.
func (t *tier) seal() {
	uniform := true
	for i := range t.members {
		t.sum += uint64(t.members[i].workload.Capacity)
		t.bounds = append(t.bounds, t.sum)
		uniform = uniform && t.members[i].workload.Capacity == t.members[0].workload.Capacity
	}
	if uniform {
		t.bounds, t.sum = nil, uint64(len(t.members))
	}
	t.step = stride(t.sum)
	t.ring = sync.OnceValue(func() *ring { return newRing(t.members) })
}

// at is the member that a point in [0,sum) falls to.
func (t *tier) at(point uint64) *candidate {
	if t.bounds == nil {
		return &t.members[point]
	}
	i, exact := slices.BinarySearch(t.bounds, point)
	if exact {
		i++ // bounds are the first points of the next member
	}
	return &t.members[i]
}

// draw gives a member by chance.
func (t *tier) draw() *candidate { return t.at(rand.Uint64N(t.sum)) }

// turn gives the nth member of a round that is interleaved by capacity.
func (t *tier) turn(n uint64) *candidate { return t.at(n % t.sum * t.step % t.sum) }

// stride is about 0.62 of n and coprime to it, so that its multiples visit all
// of [0,n) with neighbours far apart. Large sums would overflow: n is below
// 2⁶⁴ ÷ n for every n below 2³², beyond which the order is left as it is.
func stride(n uint64) uint64 {
	if n>>32 != 0 {
		return 1
	}
	for s := n*618/1000 + 1; s < n; s++ {
		if gcd(s, n) == 1 {
			return s
		}
	}
	return 1
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

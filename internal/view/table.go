package view

import "hash/maphash"

// parts is how many pieces a table is copied in.
const parts = 256

// table is a map whose copies share what they do not change.
type table[K comparable, V any] struct {
	seed maphash.Seed
	part [parts]map[K]V
	n    int
}

func (t *table[K, V]) of(k K) int { return int(maphash.Comparable(t.seed, k) % parts) }

// get returns the zero value for what is not there.
func (t *table[K, V]) get(k K) V {
	if t.n == 0 {
		var zero V
		return zero
	}
	return t.part[t.of(k)][k]
}

// all visits every entry in no order.
func (t *table[K, V]) all(yield func(K, V) bool) {
	for _, p := range t.part {
		for k, v := range p {
			if !yield(k, v) {
				return
			}
		}
	}
}

// edit is a table being changed: parts are copied before their first change.
type edit[K comparable, V any] struct {
	table[K, V]
	owned [parts]bool
}

func editing[K comparable, V any](t table[K, V]) edit[K, V] {
	if t.seed == (maphash.Seed{}) {
		t.seed = maphash.MakeSeed()
	}
	return edit[K, V]{table: t}
}

func (e *edit[K, V]) own(i int) map[K]V {
	if !e.owned[i] {
		fresh := make(map[K]V, len(e.part[i])+1)
		for k, v := range e.part[i] {
			fresh[k] = v
		}
		e.part[i], e.owned[i] = fresh, true
	}
	return e.part[i]
}

func (e *edit[K, V]) put(k K, v V) {
	p := e.own(e.of(k))
	before := len(p)
	p[k] = v
	e.n += len(p) - before
}

func (e *edit[K, V]) del(k K) {
	i := e.of(k)
	if _, ok := e.part[i][k]; ok {
		delete(e.own(i), k)
		e.n--
	}
}

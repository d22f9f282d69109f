package translate

import (
	"maps"
	"reflect"
)

// published is a map that is handed out and must not change then: the first
// change after that goes to a copy.
type published[K comparable, V any] struct {
	m     map[K]V
	given bool
	// kept is set while everything is made anew: the keys put since then. The
	// others are not there any more, but still lend their pointers.
	kept map[K]bool
}

func (p *published[K, V]) get(k K) V {
	if p.kept != nil && !p.kept[k] {
		var none V
		return none
	}
	return p.m[k]
}

// put keeps the value that is there if the new one equals it.
func (p *published[K, V]) put(k K, v V) {
	if p.kept != nil {
		p.kept[k] = true
	}
	if old, ok := p.m[k]; ok && reflect.DeepEqual(old, v) {
		return
	}
	p.own()
	p.m[k] = v
}

func (p *published[K, V]) del(k K) {
	delete(p.kept, k)
	if _, ok := p.m[k]; ok {
		p.own()
		delete(p.m, k)
	}
}

func (p *published[K, V]) own() {
	switch {
	case p.m == nil:
		p.m = map[K]V{}
	case p.given:
		p.m = maps.Clone(p.m)
	}
	p.given = false
}

// begin and end enclose a time in which everything is put again.
func (p *published[K, V]) begin() { p.kept = map[K]bool{} }

func (p *published[K, V]) end() {
	for k := range p.m {
		if !p.kept[k] {
			p.own()
			delete(p.m, k)
		}
	}
	p.kept = nil
}

// publish hands the map out.
func (p *published[K, V]) publish() map[K]V {
	if p.m == nil {
		p.own()
	}
	p.given = true
	return p.m
}

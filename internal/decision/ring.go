package decision

import (
	"slices"
	"sync"
)

// Teller is a decision as its proxy keeps it. Tell is called when somebody
// asks, once or more or never, from any goroutine.
type Teller interface {
	Tell() Story
}

// Config bounds what a Ring remembers.
type Config struct {
	// Passed and Refused are how many decisions of each kind are remembered.
	// They are apart so that what went well does not push out what did not.
	// Zero is 1024 and 4096.
	Passed, Refused int
}

// Ring remembers the decisions made last.
type Ring struct {
	mu              sync.Mutex
	passed, refused ring
}

// ring overwrites its oldest entry, guarded by Ring.mu.
type ring struct {
	kept []kept
	next int
	size int
}

type kept struct {
	id     string
	teller Teller
}

// NewRing makes an empty memory.
func NewRing(c Config) *Ring {
	if c.Passed == 0 {
		c.Passed = 1024
	}
	if c.Refused == 0 {
		c.Refused = 4096
	}
	return &Ring{passed: ring{size: c.Passed}, refused: ring{size: c.Refused}}
}

// Keep remembers a decision. passed says that it ended as its users wished;
// everything else is remembered for longer. A nil Ring remembers nothing.
func (r *Ring) Keep(id string, passed bool, t Teller) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	into := &r.refused
	if passed {
		into = &r.passed
	}
	into.put(kept{id, t})
}

func (r *ring) put(k kept) {
	if len(r.kept) < r.size {
		r.kept = append(r.kept, k)
		return
	}
	r.kept[r.next] = k
	r.next = (r.next + 1) % r.size
}

// Find tells what is remembered under an id, the oldest first. There may be
// several: both ends of a tunnel use one id, and one proxy may be both.
func (r *Ring) Find(id string) []Story {
	return r.tell(func(k kept) bool { return k.id == id }, func(Story) bool { return true })
}

// Select tells what is remembered of a source and a destination. Each is given
// by parts of the names that a Story has for them, of which one is enough; none
// is any.
func (r *Ring) Select(source, destination []string) []Story {
	return r.tell(func(kept) bool { return true }, func(s Story) bool {
		return anyOf(source, s.Source.mentions) && anyOf(destination, func(part string) bool {
			return s.Destination.mentions(part) || containsFold(s.Service, part) || containsFold(s.Asked, part)
		})
	})
}

func anyOf(parts []string, mentioned func(string) bool) bool {
	return len(parts) == 0 || slices.ContainsFunc(parts, mentioned)
}

func (r *Ring) tell(asked func(kept) bool, wanted func(Story) bool) []Story {
	r.mu.Lock()
	all := slices.Concat(r.passed.kept, r.refused.kept)
	r.mu.Unlock()
	out := []Story{}
	for _, k := range all {
		if !asked(k) {
			continue
		}
		if s := k.teller.Tell(); wanted(s) {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b Story) int { return a.At.Compare(b.At) })
	return out
}

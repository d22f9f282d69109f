package terminate

import (
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// parting is how long a service that does not use this waypoint any more is
// still served, by the last Table in which it did: clients' proxies hear of the
// change later, and until then nobody else would judge its requests.
const parting = 10 * time.Second

// maxFormer bounds the Tables that are kept for that.
const maxFormer = 8

// former are the Tables of services that have left, the newest first.
type former struct {
	mu     sync.Mutex
	last   Table // that Follow saw
	tables []formerTable
}

type formerTable struct {
	Table
	until time.Time
}

// follow keeps the Table before t if a service has left with t.
func (f *former) follow(t Table, now time.Time, left func(before, after *view.View) bool) {
	f.mu.Lock()
	before := f.last
	f.mu.Unlock()
	leaves := before != nil && before.View() != t.View() && left(before.View(), t.View())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = t
	if leaves {
		f.tables = append([]formerTable{{before, now.Add(parting)}}, f.tables...)
	}
	f.tables = f.tables[:min(len(f.tables), maxFormer)]
	for n := len(f.tables); n > 0 && now.After(f.tables[n-1].until); n-- {
		f.tables = f.tables[:n-1]
	}
}

// all are the Tables to ask where the current one does not know a service.
func (f *former) all(now time.Time) []Table {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Table
	if f.last != nil {
		out = append(out, f.last) // Follow may not have run yet
	}
	for _, t := range f.tables {
		if now.Before(t.until) {
			out = append(out, t.Table)
		}
	}
	return out
}

// left reports whether a service used this waypoint before and does not now.
func (t *Terminator) left(before, after *view.View) bool {
	for _, s := range before.Services() {
		if !t.servesService(before, s) {
			continue
		}
		if now := after.Service(s.Key()); now == nil || !t.servesService(after, now) {
			return true
		}
	}
	return false
}

// Serving gives the Table by which a service's requests are served: the current
// one, or for one that has just left the last in which it was here. Nil says
// that it is not served here.
func (t *Terminator) Serving(k mesh.ServiceKey) (table Table, leaving bool) {
	serves := func(table Table) bool {
		s := table.View().Service(k)
		return s != nil && t.servesService(table.View(), s)
	}
	if now := t.Table(); serves(now) {
		return now, false
	}
	for _, table := range t.former.all(time.Now()) {
		if serves(table) {
			return table, true
		}
	}
	return nil, false
}

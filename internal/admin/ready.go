package admin

import (
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Readiness is a set of named tasks; all must be done. The zero value is
// ready.
type Readiness struct {
	mu      sync.Mutex
	pending map[string]int
}

// Task is one thing that readiness waits for.
type Task struct {
	readiness *Readiness
	name      string
	pending   bool // guarded by readiness.mu
}

// Task adds a task that is not done.
func (r *Readiness) Task(name string) *Task {
	t := &Task{readiness: r, name: name}
	t.Set(false)
	return t
}

// Set says whether the task is done; it may change its mind.
func (t *Task) Set(done bool) {
	r := t.readiness
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		r.pending = map[string]int{}
	}
	switch {
	case done && t.pending:
		r.pending[t.name]--
		if r.pending[t.name] == 0 {
			delete(r.pending, t.name)
		}
	case !done && !t.pending:
		r.pending[t.name]++
	}
	t.pending = !done
}

// Pending lists what is not done, in order of name.
func (r *Readiness) Pending() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for n := range r.pending {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// ReadyHandler serves /healthz/ready.
func ReadyHandler(r *Readiness) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz/ready", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if names := r.Pending(); len(names) > 0 {
			w.WriteHeader(http.StatusInternalServerError)
			w.Write([]byte("not ready, pending: " + strings.Join(names, ", ") + "\n"))
			return
		}
		w.Write([]byte("ready\n"))
	})
	return mux
}

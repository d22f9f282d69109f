// Package ledger knows which generation of the mesh first held a user's object
// as it is written: what `ambit apply --wait` asks before it waits for proxies.
//
// It owns the versions of the objects that were translated. It refuses to know
// who has received a generation, which internal/xds does, and to guess: an
// object that has not been seen in the version asked for is pending. Written by
// the control plane's root after each publication, read by its pages.
package ledger

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Ledger is safe for one writer and many readers. The zero value is empty.
type Ledger struct {
	mu      sync.Mutex
	entries map[objects.Ref]entry
}

// entry is the newest version of an object and the generation that first held
// it.
type entry struct {
	version    string
	generation uint64
}

// Note says that a generation holds what changed, of which refs were taken.
func (l *Ledger) Note(changes feed.Changes, refs []objects.Ref, generation uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.entries == nil {
		l.entries = map[objects.Ref]entry{}
	}
	for _, ref := range refs {
		o, ok := changes[ref].(metav1.Object)
		if !ok {
			delete(l.entries, ref) // gone, or the settings, which are no object
			continue
		}
		l.entries[ref] = entry{o.GetResourceVersion(), generation}
	}
}

// State is what is known of an object's version.
type State string

// The states.
const (
	// Held: every generation from Answer.Generation on holds this version or a
	// later one.
	Held State = "held"
	// Pending: it has not been seen yet, or is gone.
	Pending State = "pending"
	// Unread: the mesh does not read objects of this kind, so no proxy is
	// concerned.
	Unread State = "unread"
)

// Question names one version of an object, as its API wrote it.
type Question struct {
	APIVersion      string `json:"apiVersion"`
	Kind            string `json:"kind"`
	Namespace       string `json:"namespace,omitempty"`
	Name            string `json:"name"`
	ResourceVersion string `json:"resourceVersion"`
}

// Answer is what is known of it.
type Answer struct {
	Question
	State      State  `json:"state"`
	Generation uint64 `json:"generation,omitempty"`
}

// Ref is the object that is asked about.
func (q Question) Ref() objects.Ref {
	return objects.Ref{Kind: objects.Kind(q.Kind), Key: objects.Key{Namespace: q.Namespace, Name: q.Name}}
}

// Ask answers a question.
func (l *Ledger) Ask(q Question) Answer {
	if !objects.Reads(q.APIVersion, objects.Kind(q.Kind)) {
		return Answer{Question: q, State: Unread}
	}
	l.mu.Lock()
	e, ok := l.entries[q.Ref()]
	l.mu.Unlock()
	if !ok || !reached(e.version, q.ResourceVersion) {
		return Answer{Question: q, State: Pending}
	}
	return Answer{Question: q, State: Held, Generation: e.generation}
}

// reached compares versions, which Kubernetes lets clients do since 1.35. What
// is no version there, as from a file, is only reached by itself.
func reached(have, want string) bool {
	order, err := resourceversion.CompareResourceVersion(have, want)
	if err != nil {
		return have == want
	}
	return order >= 0
}

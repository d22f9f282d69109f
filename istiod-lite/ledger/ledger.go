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
	// Settings is the ConfigMap of the mesh's settings; none is none. Set it
	// before the first question.
	Settings objects.Key

	mu      sync.Mutex
	entries map[objects.Ref]entry
	newest  uint64
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
	l.newest = generation
	for _, ref := range refs {
		switch o := changes[ref].(type) {
		case metav1.Object:
			l.entries[ref] = entry{o.GetResourceVersion(), generation}
		case objects.MeshConfig:
			l.entries[ref] = entry{o.Version, generation}
		default:
			delete(l.entries, ref) // gone
		}
	}
}

// State is what is known of an object's version.
type State string

// The states.
const (
	// Held: every generation from Answer.Generation on holds this version or a
	// later one; or holds none, if that was asked.
	Held State = "held"
	// Pending: it has not been seen yet, or is gone; or is not gone yet.
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
	// Gone asks whether the object has gone, instead.
	Gone bool `json:"gone,omitempty"`
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
	ref := q.Ref()
	switch {
	case l.settings(q):
		ref = objects.Ref{Kind: objects.KindMesh}
	case !objects.Reads(q.APIVersion, objects.Kind(q.Kind)):
		return Answer{Question: q, State: Unread}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[ref]
	switch {
	case q.Gone && (!ok || e.version == ""):
		return Answer{Question: q, State: Held, Generation: l.newest}
	case q.Gone || !ok || !reached(e.version, q.ResourceVersion):
		return Answer{Question: q, State: Pending}
	}
	return Answer{Question: q, State: Held, Generation: e.generation}
}

// settings reports whether a question is about the mesh's settings.
func (l *Ledger) settings(q Question) bool {
	return q.APIVersion == "v1" && q.Kind == string(objects.KindConfigMap) && l.Settings != objects.Key{} && q.Ref().Key == l.Settings
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

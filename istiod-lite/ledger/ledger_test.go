package ledger

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

func service(name, version string) (objects.Ref, *corev1.Service) {
	o := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: version}}
	ref, _ := objects.RefOf(o)
	return ref, o
}

// note publishes services of some versions; an empty version is a deletion.
func note(l *Ledger, generation uint64, versions map[string]string) {
	changes, refs := feed.Changes{}, []objects.Ref{}
	for name, version := range versions {
		ref, o := service(name, version)
		changes[ref] = o
		if version == "" {
			changes[ref] = nil
		}
		refs = append(refs, ref)
	}
	l.Note(changes, refs, generation)
}

func TestAVersionIsHeldFromTheGenerationThatFirstHadIt(t *testing.T) {
	var l Ledger
	note(&l, 3, map[string]string{"web": "100", "db": "101", "gone": "102", "odd": "not-a-number"})
	note(&l, 5, map[string]string{"web": "200", "gone": ""})
	refused, o := service("refused", "150")
	l.Note(feed.Changes{refused: o}, nil, 5)
	l.Note(feed.Changes{{Kind: objects.KindMesh}: objects.MeshConfig{}}, []objects.Ref{{Kind: objects.KindMesh}}, 6)
	for _, tt := range []struct {
		sentence string
		q        Question
		state    State
		since    uint64
	}{
		{"the version itself", Question{"v1", "Service", "shop", "db", "101"}, Held, 3},
		{"an earlier one than is held", Question{"v1", "Service", "shop", "web", "150"}, Held, 5},
		{"fewer digits are less", Question{"v1", "Service", "shop", "web", "99"}, Held, 5},
		{"a later one than is held", Question{"v1", "Service", "shop", "db", "102"}, Pending, 0},
		{"more digits are more", Question{"v1", "Service", "shop", "db", "1000"}, Pending, 0},
		{"an object never seen", Question{"v1", "Service", "shop", "new", "1"}, Pending, 0},
		{"an object of another namespace", Question{"v1", "Service", "bank", "db", "101"}, Pending, 0},
		{"an object that is gone", Question{"v1", "Service", "shop", "gone", "102"}, Pending, 0},
		{"an object that could not be taken", Question{"v1", "Service", "shop", "refused", "150"}, Pending, 0},
		{"what is no version is itself only", Question{"v1", "Service", "shop", "odd", "not-a-number"}, Held, 3},
		{"what is no version is nothing else", Question{"v1", "Service", "shop", "odd", "7"}, Pending, 0},
		{"a kind that the mesh does not read", Question{"apps/v1", "Deployment", "shop", "web", "1"}, Unread, 0},
		{"a kind that it reads under another group", Question{"serving.example/v1", "Service", "shop", "db", "101"}, Unread, 0},
		{"settings are no object", Question{"v1", "ConfigMap", "istio-system", "istio", "1"}, Unread, 0},
	} {
		if a := l.Ask(tt.q); a.State != tt.state || a.Generation != tt.since || a.Question != tt.q {
			t.Errorf("%s: %+v, want %s since %d", tt.sentence, a, tt.state, tt.since)
		}
	}
}

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
	l := Ledger{Settings: objects.Key{Namespace: "istio-system", Name: "istio"}}
	note(&l, 3, map[string]string{"web": "100", "db": "101", "gone": "102", "odd": "not-a-number"})
	note(&l, 5, map[string]string{"web": "200", "gone": ""})
	refused, o := service("refused", "150")
	l.Note(feed.Changes{refused: o}, nil, 5)
	l.Note(feed.Changes{{Kind: objects.KindMesh}: objects.MeshConfig{Version: "160"}}, []objects.Ref{{Kind: objects.KindMesh}}, 6)
	for _, tt := range []struct {
		sentence string
		q        Question
		state    State
		since    uint64
	}{
		{"the version itself", Question{"v1", "Service", "shop", "db", "101", false}, Held, 3},
		{"an earlier one than is held", Question{"v1", "Service", "shop", "web", "150", false}, Held, 5},
		{"fewer digits are less", Question{"v1", "Service", "shop", "web", "99", false}, Held, 5},
		{"a later one than is held", Question{"v1", "Service", "shop", "db", "102", false}, Pending, 0},
		{"more digits are more", Question{"v1", "Service", "shop", "db", "1000", false}, Pending, 0},
		{"an object never seen", Question{"v1", "Service", "shop", "new", "1", false}, Pending, 0},
		{"an object of another namespace", Question{"v1", "Service", "bank", "db", "101", false}, Pending, 0},
		{"an object that is gone", Question{"v1", "Service", "shop", "gone", "102", false}, Pending, 0},
		{"an object that could not be taken", Question{"v1", "Service", "shop", "refused", "150", false}, Pending, 0},
		{"what is no version is itself only", Question{"v1", "Service", "shop", "odd", "not-a-number", false}, Held, 3},
		{"what is no version is nothing else", Question{"v1", "Service", "shop", "odd", "7", false}, Pending, 0},
		{"a kind that the mesh does not read", Question{"apps/v1", "Deployment", "shop", "web", "1", false}, Unread, 0},
		{"a kind that it reads under another group", Question{"serving.example/v1", "Service", "shop", "db", "101", false}, Unread, 0},
		{"settings of the mesh", Question{"v1", "ConfigMap", "istio-system", "istio", "160", false}, Held, 6},
		{"later settings of the mesh", Question{"v1", "ConfigMap", "istio-system", "istio", "161", false}, Pending, 0},
		{"another ConfigMap", Question{"v1", "ConfigMap", "istio-system", "other", "1", false}, Unread, 0},
		{"whether one has gone that has", Question{"v1", "Service", "shop", "gone", "102", true}, Held, 6},
		{"whether one has gone that has not", Question{"v1", "Service", "shop", "db", "101", true}, Pending, 0},
		{"whether one has gone that is not read", Question{"apps/v1", "Deployment", "shop", "web", "1", true}, Unread, 0},
	} {
		if a := l.Ask(tt.q); a.State != tt.state || a.Generation != tt.since || a.Question != tt.q {
			t.Errorf("%s: %+v, want %s since %d", tt.sentence, a, tt.state, tt.since)
		}
	}
}

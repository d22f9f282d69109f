package telemetry

import (
	"reflect"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// FuzzBaggage: a peer may say anything of itself; what is read of it says the
// same when it is said again.
func FuzzBaggage(f *testing.F) {
	f.Add(Baggage(&mesh.Workload{
		ClusterID: "c", Namespace: "shop", Type: mesh.WorkloadDeployment, OwnerName: "front", CanonicalName: "front",
		CanonicalRevision: "v1", Locality: mesh.Locality{Region: "r", Zone: "z"},
	}))
	f.Add("k8s.namespace.name=a, k8s.pod.name = b ,,=,x")
	f.Fuzz(func(t *testing.T, text string) {
		w := ParseBaggage(text)
		if w == nil {
			return
		}
		again := ParseBaggage(Baggage(w))
		if len(text) < maxBaggage/4 && !reflect.DeepEqual(trimmed(w), trimmed(again)) {
			t.Errorf("%q: %+v came back as %+v", text, w, again)
		}
	})
}

// trimmed is what a text of pairs can carry of w: a workload's kind goes with its
// name only.
func trimmed(w *mesh.Workload) mesh.Workload {
	if w == nil {
		return mesh.Workload{}
	}
	out := *w
	if out.OwnerName == "" {
		out.Type = 0
	}
	return out
}

package view

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/xds"
)

func TestWhatIsGoneLeavesNothingBehind(t *testing.T) {
	const alive, warm, changes, most = 100, 1000, 3000, 100
	s := NewStore()
	put := func(number int) {
		k := mesh.ServiceKey{Namespace: "ns", Hostname: fmt.Sprint("svc-", number)}
		p := newPolicy("ns", fmt.Sprint("p-", number), mesh.ScopeSelector)
		w := pod(fmt.Sprint("pod-", number), fmt.Sprintf("10.0.%d.%d", number>>8&255, number&255), k)
		old := fmt.Sprint(number - alive)
		for _, u := range append(upsert(p, w, service("ns", k.Hostname, fmt.Sprintf("10.1.%d.%d", number>>8&255, number&255))),
			xds.Update{Type: xds.TypeAddress, Removed: []string{"c//Pod/ns/pod-" + old, "ns/svc-" + old}},
			xds.Update{Type: xds.TypeAuthorization, Removed: []string{"ns/p-" + old}}) {
			if bad := s.Receive(t.Context(), u); len(bad) > 0 {
				t.Fatal(bad)
			}
		}
	}
	for i := range warm {
		put(i)
	}
	before := inUse()
	for i := range changes {
		put(warm + i)
	}
	if left := (float64(inUse()) - float64(before)) / changes; left > most {
		t.Errorf("each workload, service and policy that went left %.0f bytes behind, at most %d are tolerated", left, most)
	}
	if n := len(s.View().Workloads()); n != alive {
		t.Errorf("%d workloads are alive, want %d", n, alive)
	}
}

// inUse is what stays in memory.
func inUse() uint64 {
	var m runtime.MemStats
	for range 3 { // pools are emptied by the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

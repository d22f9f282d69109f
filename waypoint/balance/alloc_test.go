package balance

import (
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestChoosingAllocatesNothing(t *testing.T) {
	for name, kind := range kinds {
		b, q := NewBalancer(), ask(many(20))
		q.Settings.Balancer.Kind = kind
		q.Hash = func(mesh.HashKey) (string, bool) { return "somebody", true }
		if n := testing.AllocsPerRun(1000, func() {
			if c, err := b.Pick(q); err == nil {
				c.Done(Result{Status: 200})
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations for a choice, want none", name, n)
		}
	}
}

package translate_test

import (
	"fmt"
	"testing"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/snapshot"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
	"github.com/ambit-mesh/ambit/istiod-lite/translate/translatetest"
)

func BenchmarkTranslate(b *testing.B) {
	for _, pods := range []int{1000, 10000} {
		set := translatetest.Cluster(pods)
		b.Run(fmt.Sprint("full/", pods), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				translate.Translate(set)
			}
		})
		b.Run(fmt.Sprint("one-pod/", pods), func(b *testing.B) {
			t := translate.New()
			t.Update(set, nil)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				t.Update(set, []objects.Ref{translatetest.ToggleReady(&set, i%pods)})
			}
		})
		b.Run(fmt.Sprint("one-pod-and-snapshot/", pods), func(b *testing.B) {
			t := translate.New()
			m, _ := t.Update(set, nil)
			snap := snapshot.ForZtunnels(nil, m)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m, _ = t.Update(set, []objects.Ref{translatetest.ToggleReady(&set, i%pods)})
				next := snapshot.ForZtunnels(snap, m)
				snap = next
			}
		})
	}
}

// BenchmarkRouteChange is from one changed route to what waypoints hold.
func BenchmarkRouteChange(b *testing.B) {
	const pods = 2000
	for _, routes := range []int{50, 5000} {
		set := translatetest.Cluster(pods)
		translatetest.AddRoutes(&set, pods, routes)
		b.Run(fmt.Sprint(routes), func(b *testing.B) {
			t := translate.New()
			m, _ := t.Update(set, nil)
			z, w := snapshot.ForZtunnels(nil, m), snapshot.ForWaypoints(nil, m)
			if len(m.Routes) != routes {
				b.Fatalf("%d routes, want %d", len(m.Routes), routes)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m, _ = t.Update(set, []objects.Ref{translatetest.ShiftRoute(&set, pods, i%routes)})
				z, w = snapshot.ForZtunnels(z, m), snapshot.ForWaypoints(w, m)
			}
		})
	}
}

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

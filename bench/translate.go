package bench

import (
	"context"
	"fmt"
	"testing"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
	"github.com/ambit-mesh/ambit/istiod-lite/translate/translatetest"
)

// translation measures the control plane's rules: a full rebuild, and one pod
// changed.
func translation(ctx context.Context, cfg *Config) (rows []Row, err error) {
	for _, size := range []struct {
		name string
		pods int
	}{{"translate.1k", 1000}, {"translate.10k", 10000}} {
		if !cfg.wants(size.name) {
			continue
		}
		if ctx.Err() != nil {
			return rows, ctx.Err()
		}
		cfg.say("%s", size.name)
		rows = append(rows, translated(size.name, size.pods))
	}
	return rows, nil
}

func translated(name string, pods int) Row {
	set := translatetest.Cluster(pods)
	full := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			translate.Translate(set)
		}
	})
	one := testing.Benchmark(func(b *testing.B) {
		t := translate.New()
		t.Update(set, nil)
		for i := 0; b.Loop(); i++ {
			t.Update(set, []objects.Ref{translatetest.ToggleReady(&set, i%pods)})
		}
	})
	us := func(r testing.BenchmarkResult) float64 { return float64(r.NsPerOp()) / 1e3 }
	row := measured(name, "us", []float64{us(one)}, []float64{us(full)}, "full rebuild", Lower, 0)
	row.Note = fmt.Sprintf("one pod of %d changed", pods)
	return row
}

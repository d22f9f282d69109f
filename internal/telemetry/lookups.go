package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxLookups bounds the series of endpoints that are known by name; beyond it those
// used least recently go. They expire as those of connections do.
const maxLookups = 5000

// lookup is one label set: who connects, and to which endpoint.
type lookup struct{ source, destination end }

type lookups struct {
	n    uint64
	used time.Time
}

var lookupDesc = prometheus.NewDesc("istio_on_demand_dns_total",
	"The number of connections whose endpoint was known by name only, so that DNS was asked for it", []string{
		"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace", "source_app", "source_version", "source_cluster",
		"destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace",
		"destination_app", "destination_version", "destination_cluster",
	}, nil)

// Lookup counts a connection for whose endpoint DNS is asked.
func (r *Recorder) Lookup(f *Flow) {
	t, k := r.traffic, lookup{endOf(f.Source, f.SourceID), endOf(f.Destination, f.DestinationID)}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.lookups[k]
	if s == nil {
		if len(t.lookups) >= maxLookups {
			t.forgetLookupsLocked()
		}
		s = &lookups{}
		t.lookups[k] = s
	}
	s.n++
	s.used = time.Now()
}

// forgetLookupsLocked drops the tenth that was used longest ago.
func (t *Traffic) forgetLookupsLocked() {
	oldest := slices.SortedFunc(maps.Keys(t.lookups), func(a, b lookup) int {
		return cmp.Compare(t.lookups[a].used.UnixNano(), t.lookups[b].used.UnixNano())
	})
	for _, k := range oldest[:maxLookups/10] {
		delete(t.lookups, k)
	}
}

// collectLookupsLocked drops what has expired and gives the rest.
func (t *Traffic) collectLookupsLocked(now time.Time) []prometheus.Metric {
	var out []prometheus.Metric
	for k, s := range t.lookups {
		if now.Sub(s.used) > t.config.Expiry {
			delete(t.lookups, k)
			continue
		}
		v := append(k.source.place(), k.destination.place()...)
		out = append(out, prometheus.MustNewConstMetric(lookupDesc, prometheus.CounterValue, float64(s.n), v...))
	}
	return out
}

// place is an end without its identity and locality.
func (e *end) place() []string {
	return []string{e.workload, e.canonicalService, e.canonicalRevision, e.namespace, e.app, e.version, e.cluster}
}

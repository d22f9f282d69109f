package dns

import (
	"cmp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// expiry drops the series of a workload that has not asked for so long.
const expiry = time.Hour

// durations are Istio's buckets, of seconds.
var durations = [...]float64{0.0005, 0.001, 0.01, 0.1, 1, 5}

// key tells series apart (dataplane spec 7.2).
type key struct{ kind, protocol, service, revision string }

// series is what is counted of one key.
type series struct {
	requests, upstream, failures uint64
	seconds                      float64
	buckets                      [len(durations)]uint64
	used                         time.Time
}

// Metrics are Istio's of DNS as a prometheus.Collector. A nil *Metrics counts
// nothing.
type Metrics struct {
	mu     sync.Mutex
	series map[key]*series
}

// NewMetrics makes the metrics; the caller registers them.
func NewMetrics() *Metrics { return &Metrics{series: map[key]*series{}} }

// asked counts a query of a program.
func (m *Metrics) asked(q *query, network string, local *mesh.Workload) {
	m.count(q, network, local, func(s *series) { s.requests++ })
}

// forwarded counts a query that went on to a resolver.
func (m *Metrics) forwarded(q *query, network string, local *mesh.Workload, took time.Duration, err error) {
	m.count(q, network, local, func(s *series) {
		s.upstream++
		if err != nil {
			s.failures++
		}
		s.seconds += took.Seconds()
		for i, bound := range durations {
			if took.Seconds() <= bound {
				s.buckets[i]++
			}
		}
	})
}

func (m *Metrics) count(q *query, network string, local *mesh.Workload, add func(*series)) {
	if m == nil {
		return
	}
	k := key{kind: q.kind(), protocol: network, service: "unknown", revision: "unknown"}
	if local != nil {
		k.service, k.revision = cmp.Or(local.CanonicalName, k.service), cmp.Or(local.CanonicalRevision, k.revision)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.series[k]
	if s == nil {
		s = &series{}
		m.series[k] = s
	}
	s.used = time.Now()
	add(s)
}

var labelNames = []string{"request_query_type", "request_protocol", "source_canonical_service", "source_canonical_revision"}

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("istio_dns_"+name, help, labelNames, nil)
}

var (
	requestsDesc = desc("requests_total", "The total number of DNS requests")
	upstreamDesc = desc("upstream_requests_total", "The total number of DNS requests that went on to a resolver")
	failuresDesc = desc("upstream_failures_total", "The total number of DNS requests that no resolver answered")
	durationDesc = desc("upstream_request_duration_seconds", "How long resolvers took to answer DNS requests")
)

// Describe tells the names.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requestsDesc, upstreamDesc, failuresDesc, durationDesc} {
		out <- d
	}
}

// Collect drops what has expired and gives the rest.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, s := range m.series {
		if time.Since(s.used) > expiry {
			delete(m.series, k)
			continue
		}
		v := []string{k.kind, k.protocol, k.service, k.revision}
		out <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(s.requests), v...)
		if s.upstream == 0 {
			continue
		}
		out <- prometheus.MustNewConstMetric(upstreamDesc, prometheus.CounterValue, float64(s.upstream), v...)
		out <- prometheus.MustNewConstMetric(failuresDesc, prometheus.CounterValue, float64(s.failures), v...)
		buckets := make(map[float64]uint64, len(durations))
		for i, bound := range durations {
			buckets[bound] = s.buckets[i]
		}
		out <- prometheus.MustNewConstHistogram(durationDesc, s.upstream, s.seconds, buckets, v...)
	}
}

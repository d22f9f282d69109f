package istiodlite

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ambit-mesh/ambit/istiod-lite/ca"
)

// metrics has Istio's names, so that its dashboards work. It is the observer
// of pushes.
type metrics struct {
	registry    *prometheus.Registry
	clients     prometheus.Gauge
	pushes      *prometheus.CounterVec
	resources   *prometheus.CounterVec
	size        *prometheus.HistogramVec
	rejects     *prometheus.CounterVec
	convergence prometheus.Histogram
	updates     prometheus.Counter
	services    prometheus.Gauge
	translation prometheus.Histogram
	requests    prometheus.Counter
	issued      prometheus.Counter
	unauthentic prometheus.Counter
	refused     *prometheus.CounterVec
	rootExpiry  prometheus.Gauge
	rootPhase   *prometheus.GaugeVec
	rootWaiting prometheus.Gauge
	rootSince   prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		registry:    prometheus.NewRegistry(),
		clients:     gauge("pilot_xds", "Proxies connected."),
		pushes:      counters("pilot_xds_pushes", "Responses sent to proxies.", "type"),
		resources:   counters("ambit_xds_resources_pushed", "Resources and removals sent to proxies.", "type"),
		size:        histograms("pilot_xds_config_size_bytes", "Sizes of responses.", prometheus.ExponentialBuckets(100, 10, 7), "type"),
		rejects:     counters("pilot_total_xds_rejects", "Responses that proxies rejected in part.", "type"),
		convergence: histogram("pilot_proxy_convergence_time", "Seconds from a change to its last byte given to a proxy.", .01, .05, .1, .25, .5, 1, 3, 5, 10, 20, 30),
		updates:     counter("pilot_inbound_updates", "Changed objects."),
		services:    gauge("pilot_services", "Services in the mesh."),
		translation: histogram("pilot_pushcontext_init_seconds", "Seconds from changed objects to a published snapshot.", .0005, .001, .005, .01, .05, .1, .5, 1, 3),
		requests:    counter("citadel_server_csr_count", "Certificate requests."),
		issued:      counter("citadel_server_success_cert_issuance_count", "Certificates issued."),
		unauthentic: counter("citadel_server_authentication_failure_count", "Certificate requests without a valid caller."),
		refused:     counters("ambit_ca_refusals", "Certificate requests that were refused.", "reason"),
		rootExpiry:  gauge("citadel_server_root_cert_expiry_timestamp", "When the signing certificate expires, in seconds since 1970."),
		rootPhase: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ambit_ca_phase", Help: "1 for the phase in which the replacement of the root is; steady while there is none.",
		}, []string{"phase"}),
		rootWaiting: gauge("ambit_ca_waiting", "Replicas and proxies that hold the replacement of the root back."),
		rootSince:   gauge("ambit_ca_phase_since_timestamp", "When the phase began, in seconds since 1970."),
	}
	started := time.Now()
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "istiod_uptime_seconds", Help: "Seconds since the start."},
			func() float64 { return time.Since(started).Seconds() }),
		m.clients, m.pushes, m.resources, m.size, m.rejects, m.convergence, m.updates, m.services, m.translation,
		m.requests, m.issued, m.unauthentic, m.refused, m.rootExpiry, m.rootPhase, m.rootWaiting, m.rootSince,
	)
	return m
}

func (m *metrics) pages() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

// short is a type URL's label.
func short(typ string) string { return strings.ToLower(typ[strings.LastIndexAny(typ, "./")+1:]) }

// Connected implements xds.Observer.
func (m *metrics) Connected(delta int) { m.clients.Add(float64(delta)) }

// Pushed implements xds.Observer.
func (m *metrics) Pushed(typ string, resources, bytes int) {
	m.pushes.WithLabelValues(short(typ)).Inc()
	m.resources.WithLabelValues(short(typ)).Add(float64(resources))
	m.size.WithLabelValues(short(typ)).Observe(float64(bytes))
}

// Rejected implements xds.Observer.
func (m *metrics) Rejected(typ string) { m.rejects.WithLabelValues(short(typ)).Inc() }

// Converged implements xds.Observer.
func (m *metrics) Converged(d time.Duration) { m.convergence.Observe(d.Seconds()) }

func (m *metrics) translated(changes, services int, took time.Duration) {
	m.updates.Add(float64(changes))
	m.services.Set(float64(services))
	m.translation.Observe(took.Seconds())
}

// certificate counts how a certificate request ended.
func (m *metrics) certificate(o ca.Outcome) {
	m.requests.Inc()
	switch o {
	case ca.Issued:
		m.issued.Inc()
		return
	case ca.Unauthentic:
		m.unauthentic.Inc()
	case ca.Unauthorized, ca.BadRequest, ca.SigningFailed:
	}
	m.refused.WithLabelValues(string(o)).Inc()
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counters(name, help, label string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
}

func histogram(name, help string, buckets ...float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

func histograms(name, help string, buckets []float64, label string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{label})
}

package certs

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	refusedDesc = prometheus.NewDesc("istio_crl_policy_rejections_total", "Handshakes refused because the peer's certificate is revoked", []string{"reporter"}, nil)
	endedDesc   = prometheus.NewDesc("ambit_crl_tunnels_ended_total", "Tunnels ended because their peer's certificate was revoked", nil, nil)
	badDesc     = prometheus.NewDesc("ambit_crl_unreadable_total", "Lists of revoked certificates that could not be read; the last ones stay in force", nil, nil)
	epochDesc   = prometheus.NewDesc("ambit_trust_epoch", "Epoch of the roots told by the control plane, 0 while they come with certificates", nil, nil)
	heldDesc    = prometheus.NewDesc("ambit_certificates", "Certificates in use, by the fingerprint of their root", []string{"root"}, nil)
)

var _ prometheus.Collector = (*Manager)(nil)

// Describe implements prometheus.Collector.
func (m *Manager) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{refusedDesc, endedDesc, badDesc, epochDesc, heldDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Manager) Collect(ch chan<- prometheus.Metric) {
	m.guard.mu.Lock()
	refused, ended, bad := maps.Clone(m.guard.stats.Refused), m.guard.stats.Ended, m.guard.stats.Bad
	m.guard.mu.Unlock()
	for _, reporter := range []string{"source", "destination"} {
		ch <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(refused[reporter]), reporter)
	}
	ch <- prometheus.MustNewConstMetric(endedDesc, prometheus.CounterValue, float64(ended))
	ch <- prometheus.MustNewConstMetric(badDesc, prometheus.CounterValue, float64(bad))
	s := m.standing()
	ch <- prometheus.MustNewConstMetric(epochDesc, prometheus.GaugeValue, float64(s.Epoch))
	for _, h := range s.Holds {
		ch <- prometheus.MustNewConstMetric(heldDesc, prometheus.GaugeValue, float64(h.Count), short([]string{h.Root}))
	}
}

package balance

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	endpointNames = []string{"destination_service_namespace", "destination_service", "destination_port", "destination_workload_uid"}

	stateDesc = prometheus.NewDesc("ambit_circuit_state", "1 for the state of an endpoint's circuit, with the reason of its last ejection; only of endpoints that were ejected",
		append(endpointNames[:len(endpointNames):len(endpointNames)], "state", "reason"), nil)
	shareDesc = prometheus.NewDesc("ambit_circuit_share", "How much of its part of the requests an endpoint gets, from 0 to 1; only of endpoints that were ejected",
		endpointNames, nil)
	ejectionsDesc = prometheus.NewDesc("ambit_circuit_ejections_total", "How often an endpoint was ejected",
		endpointNames, nil)
	overflowsDesc = prometheus.NewDesc("ambit_overflows_total", "Requests and connections refused because a bound of the service was reached",
		[]string{"destination_service_namespace", "destination_service", "destination_port"}, nil)
)

// Describe describes nothing: what there is depends on the endpoints.
func (b *Balancer) Describe(chan<- *prometheus.Desc) {}

// Collect tells of the endpoints that were ever ejected. Those that are well
// are many, and have nothing to tell.
func (b *Balancer) Collect(out chan<- prometheus.Metric) {
	for _, s := range b.Circuits() {
		if s.Ejections == 0 {
			continue
		}
		labels := []string{s.Service.Namespace, s.Service.Hostname, strconv.Itoa(int(s.Port)), s.Workload}
		out <- prometheus.MustNewConstMetric(shareDesc, prometheus.GaugeValue, float64(s.Percent)/100, labels...)
		out <- prometheus.MustNewConstMetric(ejectionsDesc, prometheus.CounterValue, float64(s.Ejections), labels...)
		out <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, 1, append(labels, s.State.String(), string(s.Reason))...)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for k, g := range b.groups {
		if n := g.overflows.Load(); n > 0 {
			out <- prometheus.MustNewConstMetric(overflowsDesc, prometheus.CounterValue, float64(n),
				k.service.Namespace, k.service.Hostname, strconv.Itoa(int(k.port)))
		}
	}
}

package inpod

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/zds"
)

// State is how a pod is served.
type State string

// The states, as istioctl and ambit show them.
const (
	Up       State = "Up"
	Pending  State = "Pending"
	Draining State = "Draining"
)

// Status is one pod's state.
type Status struct {
	zds.Pod
	State State
	// Err is why it is pending.
	Err   error
	Since time.Time
	// Proxy is nil for a pending pod.
	Proxy Proxy
}

// Pods lists every pod by namespace and name, the draining ones too.
func (m *Manager) Pods() []Status {
	m.mu.Lock()
	var out []Status
	for _, p := range m.pods {
		state := Up
		if p.proxy == nil {
			state = Pending
		}
		out = append(out, Status{p.Pod, state, p.err, p.since, p.proxy})
	}
	for p := range m.old {
		out = append(out, Status{p.Pod, Draining, nil, p.since, p.proxy})
	}
	m.mu.Unlock()
	slices.SortFunc(out, func(a, b Status) int {
		if c := strings.Compare(a.Pod.String(), b.Pod.String()); c != 0 {
			return c
		}
		return a.Since.Compare(b.Since)
	})
	return out
}

type counts struct{ started, stopped uint64 }

// The names are upstream's: no istio_ before them (dataplane spec 7.2).
var (
	activeDesc  = prometheus.NewDesc("workload_manager_active_proxy_count", "The pods served now", nil, nil)
	pendingDesc = prometheus.NewDesc("workload_manager_pending_proxy_count", "The pods that could not be served yet", nil, nil)
	startedDesc = prometheus.NewDesc("workload_manager_proxies_started_total", "The pods that began to be served", nil, nil)
	stoppedDesc = prometheus.NewDesc("workload_manager_proxies_stopped_total", "The pods that ceased to be served", nil, nil)
)

// Describe makes Manager a prometheus.Collector.
func (m *Manager) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

// Collect gives the numbers of pods.
func (m *Manager) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	active, pending, c := 0, 0, m.counts
	for _, p := range m.pods {
		if p.proxy == nil {
			pending++
		} else {
			active++
		}
	}
	m.mu.Unlock()
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	out <- prometheus.MustNewConstMetric(activeDesc, gauge, float64(active))
	out <- prometheus.MustNewConstMetric(pendingDesc, gauge, float64(pending))
	out <- prometheus.MustNewConstMetric(startedDesc, counter, float64(c.started))
	out <- prometheus.MustNewConstMetric(stoppedDesc, counter, float64(c.stopped))
}

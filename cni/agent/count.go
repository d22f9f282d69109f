package agent

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/cni/members"
)

// Counts are the agent's metrics, with upstream's names where it has them.
type Counts struct {
	requests, reconciles, installs, mended *prometheus.CounterVec
}

// NewCounts makes and registers them.
func NewCounts(r prometheus.Registerer) *Counts {
	c := &Counts{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_cni_plugin_requests_total", Help: "Requests of the CNI plugin, by answer.",
		}, []string{"response_code"}),
		reconciles: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nodeagent_reconcile_events_total", Help: "What was done to pods: admit, enrol, release, ended, gone.",
		}, []string{"type"}),
		installs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_cni_installs_total", Help: "Installations of the CNI plugin, by result.",
		}, []string{"result"}),
		mended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_cni_rules_mended_total",
			Help: "Times that rules in the kernel had changed and were mended, by place (pod, node) and how it was noticed (told by the kernel, looked).",
		}, []string{"place", "noticed"}),
	}
	r.MustRegister(c.requests, c.reconciles, c.installs, c.mended)
	return c
}

// Installed counts an installation.
func (c *Counts) Installed(err error) {
	result := "SUCCESS"
	if err != nil {
		result = "FAILURE"
	}
	c.installs.WithLabelValues(result).Inc()
}

func (c *Counts) mendedRules(m members.Mending) {
	place := "pod"
	if m.UID == "" {
		place = "node"
	}
	if c != nil {
		c.mended.WithLabelValues(place, string(m.Noticed)).Inc()
	}
}

func (c *Counts) answered(status int) {
	if c != nil {
		c.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	}
}

func (c *Counts) reconciled(kind string) {
	if c != nil {
		c.reconciles.WithLabelValues(kind).Inc()
	}
}

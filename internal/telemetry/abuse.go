package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Abuses counts the peers that were cut off or not let in.
type Abuses struct{ count *prometheus.CounterVec }

// NewAbuses registers the metric with r.
func NewAbuses(r prometheus.Registerer) *Abuses {
	a := &Abuses{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ambit_tunnel_abuse_total",
		Help: "Peers of tunnels that were cut off, and connections that were turned away, by what they did",
	}, []string{"reason"})}
	r.MustRegister(a.count)
	return a
}

// Add counts one. The reasons are few and the caller's own, never a peer's words.
func (a *Abuses) Add(reason string) { a.count.WithLabelValues(reason).Inc() }

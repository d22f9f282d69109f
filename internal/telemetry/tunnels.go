package telemetry

import "github.com/prometheus/client_golang/prometheus"

// RegisterTunnels registers with r how many tunnels to others a proxy has open.
func RegisterTunnels(r prometheus.Registerer, open func() int) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_tunnels_open",
		Help: "Tunnels to other proxies that are being made, kept to be used again, or ending",
	}, func() float64 { return float64(open()) }))
}

// Transports count the tunnels that a proxy made to others, by what carries them.
type Transports struct {
	made   *prometheus.CounterVec
	fallen prometheus.Counter
}

// NewTransports registers the counters with r.
func NewTransports(r prometheus.Registerer) *Transports {
	t := &Transports{
		made: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_tunnels_made_total", Help: "Tunnels made to other proxies, by transport (h2, h3)",
		}, []string{"transport"}),
		fallen: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_http3_blocked_total", Help: "Times that HTTP/3 did not get through to an address that accepts it, so that HTTP/2 was used",
		}),
	}
	for _, name := range []string{"h2", "h3"} {
		t.made.WithLabelValues(name)
	}
	r.MustRegister(t.made, t.fallen)
	return t
}

// Made counts a tunnel. A nil Transports counts nothing.
func (t *Transports) Made(h3 bool) {
	switch {
	case t == nil:
	case h3:
		t.made.WithLabelValues("h3").Inc()
	default:
		t.made.WithLabelValues("h2").Inc()
	}
}

// Blocked counts that HTTP/3 did not get through.
func (t *Transports) Blocked() {
	if t != nil {
		t.fallen.Inc()
	}
}

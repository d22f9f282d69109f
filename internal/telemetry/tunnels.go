package telemetry

import "github.com/prometheus/client_golang/prometheus"

// RegisterTunnels registers with r how many tunnels to others a proxy has open.
func RegisterTunnels(r prometheus.Registerer, open func() int) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_tunnels_open",
		Help: "Tunnels to other proxies that are being made, kept to be used again, or ending",
	}, func() float64 { return float64(open()) }))
}

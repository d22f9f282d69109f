package outbound

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/telemetry"
)

func TestConnectionsToEndpointsByNameAreCounted(t *testing.T) {
	r := newRig(t)
	traffic := telemetry.NewTraffic(telemetry.TrafficConfig{})
	r.out.Recorder = telemetry.NewRecorder(traffic, slog.New(slog.DiscardHandler))
	for _, to := range []string{"240.240.0.2:443", "240.240.0.2:443", "10.96.0.2:80", "192.0.2.200:80"} {
		r.send(to, "hello") // those by name fail: they count too
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(traffic)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "istio_on_demand_dns_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			ends := ""
			for _, l := range m.GetLabel() {
				if l.GetName() == "source_canonical_service" || l.GetName() == "destination_workload_namespace" {
					ends += " " + l.GetValue()
				}
			}
			got[ends] += m.GetCounter().GetValue()
		}
	}
	if d := cmp.Diff(map[string]float64{" shop client": 2}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

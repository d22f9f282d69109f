package balance

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestMetricsTellOfEjectedEndpointsAndBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), ask(many(3))
		q.Settings.Outlier = mesh.Outlier{BaseEjection: time.Hour}
		clients(t, b, q, 5*time.Second, failing("pod-1"), func(time.Duration, Choice) {})
		q.Settings.Connections.MaxRequests = 1
		bounded(t, b, q, "http2MaxRequests")
		const at = `{destination_port="80",destination_service="web",destination_service_namespace="shop"`
		const pod = at + `,destination_workload_uid="pod-1"`
		want := []string{
			`ambit_circuit_ejections_total` + pod + `} 1`, `ambit_circuit_share` + pod + `} 0`,
			`ambit_circuit_state` + pod + `,reason="gateway-errors",state="open"} 1`, `ambit_overflows_total` + at + `} 1`,
		}
		if d := cmp.Diff(want, scrape(t, b)); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
		text, err := json.Marshal(stateOf(t, b, "pod-1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{`"state":"open"`, `"cause":"3 failures in a row, the last a gateway error: status 503"`, `"Hostname":"web"`, `"until":`} {
			if !strings.Contains(string(text), part) {
				t.Errorf("the status as JSON lacks %s: %s", part, text)
			}
		}
	})
}

// scrape is the samples as one line each.
func scrape(t *testing.T, c prometheus.Collector) []string {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			lines = append(lines, fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(labels, ","), m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
	}
	return lines
}

package inbound

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

func TestADryRunIsRecordedAndNotEnforced(t *testing.T) {
	r := newRig(t, "")
	var log bytes.Buffer
	r.in.DryRuns = telemetry.NewDryRuns(slog.New(slog.NewTextHandler(&log, nil)))
	m := model(t, "")
	trial := *m.Policies[mesh.PolicyKey{Namespace: "shop", Name: "no-thief"}]
	trial.Key.Name, trial.DryRun, trial.Rules = "nobody", true, []mesh.Rule{{}}
	m.Policies[trial.Key] = &trial
	r.store.Replace(m)
	in, _, done := r.call("10.1.0.6:8080", account("client"))
	done()
	if in.status != 200 {
		t.Errorf("the answer is %d %s", in.status, in.reason)
	}
	for _, want := range []string{"policy=shop/nobody", "verdict=allow", "would_be=deny", "src.identity=" + account("client").String(), "dst.workload=web"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in %s", want, log.String())
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d records, want one", n)
	}
}

package exchange

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

func TestADryRunOfARequestIsRecordedAndNotEnforced(t *testing.T) {
	r := newRig(t)
	r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.Named("web")))
	var log bytes.Buffer
	r.x.config.DryRuns = telemetry.NewDryRuns(slog.New(slog.NewTextHandler(&log, nil)))
	k := mesh.PolicyKey{Namespace: "shop", Name: "trial"}
	r.state.model.Policies[k] = &mesh.Policy{Key: k, Action: mesh.ActionAllow, DryRun: true, Scope: mesh.ScopeTargets}
	if resp, _ := r.do(false, "GET /", ""); resp.StatusCode != 200 {
		t.Errorf("answered %d", resp.StatusCode)
	}
	id := r.story().ID // kept after the note
	for _, want := range []string{"policy=shop/trial", "action=ALLOW", "verdict=allow", "would_be=deny", "id=" + id, "direction=waypoint", "dst.service=" + key("web").Hostname} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in %s", want, log.String())
		}
	}
}

package terminate

import (
	"errors"
	"testing"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

func TestConnectionsOfAnotherTrustDomainAreDenied(t *testing.T) {
	r := newRig(t)
	r.service("db", 1, mesh.AppTCP, r.pod("db", backendtest.TCP(greeter)))
	foreign := *r.self
	foreign.TrustDomain = "other.example" // as after the end of the alias that the client's tunnel was accepted by
	r.term.Self = func() *mesh.Workload { return &foreign }
	_, err := r.open("10.96.0.1:80")
	if no, _ := errors.AsType[*hbone.StatusError](err); no == nil || no.Response.Status != 401 {
		t.Errorf("%v, want 401", err)
	}
	foreign.Settings.TrustDomainAliases = []string{client.TrustDomain}
	r.mustOpen("10.96.0.1:80")
}

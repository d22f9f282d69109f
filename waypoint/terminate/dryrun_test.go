package terminate

import (
	"io"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

func TestADryRunOfAConnectionIsRecordedAndNotEnforced(t *testing.T) {
	r := newRig(t)
	r.service("db", 1, mesh.AppTCP, r.pod("db", backendtest.TCP(greeter)))
	k := mesh.PolicyKey{Namespace: "shop", Name: "trial"}
	r.model.Policies[k] = &mesh.Policy{
		Key: k, Scope: mesh.ScopeTargets, Action: mesh.ActionDeny, DryRun: true, Rules: []mesh.Rule{{}}, Targets: []mesh.Target{{Service: key("db")}},
	}
	r.store.Replace(r.model)
	if _, err := io.ReadFull(r.mustOpen("10.96.0.1:80"), make([]byte, 11)); err != nil {
		t.Fatal(err)
	}
	r.logs(`msg="dry run" component=policy policy=shop/trial action=DENY verdict=allow would_be=deny`)
}

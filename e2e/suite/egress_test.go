//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// outsideByName is a host outside of the mesh, known to its own namespace, with an
// address that nobody gave it; what is dialled there passes an egress waypoint,
// which admits one account. The endpoint is a name.
const outsideByName = `apiVersion: v1
kind: Service
metadata: {name: api, namespace: %[2]s}
spec: {clusterIP: None, selector: {app: api}, ports: [{name: any, port: 1}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: %[1]s, labels: {istio.io/use-waypoint: egress}}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  exportTo: ["."]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: %[3]d}, {number: 81, name: tcp, protocol: TCP, targetPort: %[3]d}]
  endpoints: [{address: api.%[2]s.svc.cluster.local}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: api, namespace: %[1]s}
spec:
  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: api}]
  action: ALLOW
  rules: [{from: [{source: {principals: ["%[4]s"]}}]}]
`

// TestOnlyWhoMayReachesWhatIsOutside by its name: requests and other connections of
// one account pass the egress waypoint, those of another do not, another namespace
// does not know the name.
func TestOnlyWhoMayReachesWhatIsOutside(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, true); err != nil {
			return err
		}
		other, err := sc.Another(ctx, "other", true)
		if err != nil {
			return err
		}
		if _, err := sc.outsider(ctx); err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "may", Node: 1}, Pod{Name: "may-not", Node: 1}, Pod{Name: "stranger", Namespace: other}); err != nil {
			return err
		}
		objects := fmt.Sprintf(outsideByName, sc.NS, sc.NS+"-out", httpPort, Principal(sc.NS, "may"))
		if err := errors.Join(sc.Apply(ctx, objects), sc.waypoint(ctx, sc.NS, "egress", "")); err != nil {
			return err
		}
		get := func(target string) []string { return []string{"get", "--timeout", "5s", target} }
		refused := []string{"get", "--timeout", "5s", "--status", "403", url("api.example.com", 80)}
		requests, bytes := get(url("api.example.com", 80)), get(url("api.example.com", 81))
		decided := func(ctx context.Context) error {
			return errors.Join(
				sc.Works(ctx, "may", requests...), sc.Works(ctx, "may", bytes...),
				sc.Works(ctx, "may-not", refused...), sc.Fails(ctx, "may-not", bytes...),
				sc.Fails(ctx, other+"/stranger", requests...),
			)
		}
		return Soon(ctx, decided)
	})
}

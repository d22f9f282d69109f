package command

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/ambit/reach"
)

const someGateways = `
- apiVersion: gateway.networking.k8s.io/v1
  kind: Gateway
  metadata: {name: waypoint, namespace: shop, generation: 1}
  spec: {gatewayClassName: istio-waypoint}
  status:
    addresses: [{type: IPAddress, value: 10.96.0.9}, {type: Hostname, value: waypoint.shop.svc.cluster.local}]
    conditions:
    - {type: Accepted, status: "True", reason: Accepted, message: The Gateway is a waypoint., observedGeneration: 1}
    - {type: Programmed, status: "True", reason: Programmed, message: The waypoint is ready., observedGeneration: 1}
- apiVersion: gateway.networking.k8s.io/v1
  kind: Gateway
  metadata: {name: pods, namespace: bank, generation: 2, labels: {istio.io/waypoint-for: workload}}
  spec: {gatewayClassName: istio-waypoint}
  status:
    conditions:
    - {type: Programmed, status: "True", reason: Programmed, message: said of an older generation, observedGeneration: 1}
- apiVersion: gateway.networking.k8s.io/v1
  kind: Gateway
  metadata: {name: young, namespace: bank, generation: 1}
  spec: {gatewayClassName: istio-waypoint}
- apiVersion: gateway.networking.k8s.io/v1
  kind: Gateway
  metadata: {name: ingress, namespace: shop}
  spec: {gatewayClassName: nginx}
`

// someCluster is a cluster with someGateways and the namespaces shop and bank.
func someCluster(t *testing.T) *global {
	t.Helper()
	resource := schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}
	d := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		resource: "GatewayList", {Version: "v1", Resource: "namespaces"}: "NamespaceList",
	})
	j, err := yaml.YAMLToJSON([]byte("kind: List\napiVersion: v1\nitems:" + someGateways))
	if err != nil {
		t.Fatal(err)
	}
	list := &unstructured.UnstructuredList{}
	if err := list.UnmarshalJSON(j); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		if err := d.Tracker().Create(resource, &list.Items[i], list.Items[i].GetNamespace()); err != nil {
			t.Fatal(err)
		}
	}
	return &global{version: "v0-test", open: func(string, string) (*reach.Cluster, error) { return &reach.Cluster{Dynamic: d}, nil }}
}

func TestWaypointsOfACluster(t *testing.T) {
	archive := &txtar.Archive{Comment: []byte("What each command prints of a cluster with four Gateways. Rewrite with: go test ./ambit/command -update\n")}
	for _, line := range []string{
		"waypoint generate", "waypoint generate -n shop --name pods --for workload -r canary",
		"waypoint list -A", "waypoint ls -n shop", "waypoint list -n nowhere", "waypoint list -A -o json",
		"waypoint status -A --wait=false", "waypoint status pods -n bank --wait=false", "waypoint delete -n shop waypoint", "waypoint delete -n bank --all",
	} {
		var out, errs bytes.Buffer
		if code := someCluster(t).run(context.Background(), strings.Fields(line), &out, &errs); code != 0 || errs.String() != "" {
			t.Errorf("ambit %s: exit %d, stderr %q", line, code, errs.String())
		}
		archive.Files = append(archive.Files, txtar.File{Name: line, Data: out.Bytes()})
	}
	golden(t, "testdata/waypoints.txtar", archive)
}

func TestWaypointCommandsThatMakeNoSense(t *testing.T) {
	for _, tt := range []struct {
		line string
		code int
		says string
	}{
		{"waypoint generate --name none", ExitUsage, `cannot be named "none"`},
		{"waypoint generate --for everything", ExitUsage, "want one of [service workload all none]"},
		{"waypoint apply now", ExitUsage, `takes no argument, got "now"`},
		{"waypoint apply -n nowhere", ExitError, "looking for namespace nowhere"},
		{"waypoint delete -n shop", ExitUsage, "delete which?"},
		{"waypoint delete -n shop waypoint --all", ExitUsage, "delete which?"},
		{"waypoint delete -n shop gone", ExitError, "there is no waypoint shop/gone"},
		{"waypoint delete -n shop ingress", ExitError, "is of class nginx: it is no waypoint, and left alone"},
		{"waypoint list -A -n shop", ExitUsage, "-n is one namespace and -A all of them"},
		{"waypoint status gone -n shop --wait=false", ExitError, "there is no waypoint shop/gone"},
		{"waypoint status young -n bank --waypoint-timeout 1ms", ExitError, "waiting for waypoint bank/young: not within 1ms: the control plane has said nothing about it"},
	} {
		var out, errs bytes.Buffer
		code := someCluster(t).run(context.Background(), strings.Fields(tt.line), &out, &errs)
		if code != tt.code || !strings.Contains(errs.String(), tt.says) {
			t.Errorf("ambit %s: exit %d (want %d), stderr %q (want %q in it)", tt.line, code, tt.code, errs.String(), tt.says)
		}
	}
}

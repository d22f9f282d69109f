package install

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"
)

func TestUninstallDeletesTheWaypointsAndNothingElse(t *testing.T) {
	const world = `
{apiVersion: apps/v1, kind: Deployment, metadata: {name: waypoint, namespace: shop, labels: {gateway.istio.io/managed: istio.io-mesh-controller}}}
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}}
{apiVersion: apps/v1, kind: Deployment, metadata: {name: gateway, namespace: shop, labels: {gateway.istio.io/managed: istio.io-gateway-controller}}}
{apiVersion: v1, kind: Service, metadata: {name: waypoint, namespace: shop, labels: {gateway.istio.io/managed: istio.io-mesh-controller}}}
{apiVersion: v1, kind: ServiceAccount, metadata: {name: waypoint, namespace: shop, labels: {gateway.istio.io/managed: istio.io-mesh-controller}}}
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint}, spec: {controllerName: istio.io/mesh-controller}}
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: other}, spec: {controllerName: example.com/controller}}
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: shop}, spec: {gatewayClassName: istio-waypoint}}
`
	var objs []runtime.Object
	for line := range strings.Lines(strings.TrimSpace(world)) {
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(line), &obj.Object); err != nil {
			t.Fatal(err)
		}
		objs = append(objs, obj)
	}
	lists := map[schema.GroupVersionResource]string{}
	for _, kind := range append(slices.Clone(waypointKinds), claimKinds...) {
		lists[kind] = "List"
	}
	client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists, objs...)
	var progress bytes.Buffer
	if err := deleteWaypoints(t.Context(), client, &progress); err != nil {
		t.Fatal(err)
	}
	want := "deleted deployment/waypoint in shop\ndeleted service/waypoint in shop\ndeleted serviceaccount/waypoint in shop\ndeleted gatewayclass/istio-waypoint\n"
	if diff := cmp.Diff(want, progress.String()); diff != "" {
		t.Error(diff)
	}
}

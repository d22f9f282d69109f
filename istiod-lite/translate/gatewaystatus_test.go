package translate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

const (
	itsService = "apiVersion: v1\nkind: Service\nmetadata: {name: w, namespace: shop, labels: {gateway.istio.io/managed: istio.io-mesh-controller}}\nspec: {clusterIPs: [10.96.0.9, \"fd00::9\"], selector: {gateway.networking.k8s.io/gateway-name: w}}\n"
	itsPod     = "apiVersion: v1\nkind: Pod\nmetadata: {name: w-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: w}}\nstatus: {phase: Running, podIPs: [{ip: 10.1.0.1}], conditions: [{type: Ready, status: \"True\"}]}\n"
)

func TestWhatAWaypointSaysOfItself(t *testing.T) {
	const good = "{name: mesh, port: 15008, protocol: HBONE}"
	for _, tt := range []struct {
		sentence, name, listeners, status string
		others                            []string
		accepted, programmed              string // status/reason
		listener                          string // Accepted of the first
		addresses                         string
	}{
		{"one that is ready", "w", good, "", []string{itsService, itsPod}, "true/Accepted", "true/Programmed", "true/Accepted", "10.96.0.9 fd00::9 w.shop.svc.cluster.local"},
		{"one without a pod", "w", good, "", []string{itsService}, "true/Accepted", "false/AddressNotAssigned", "true/Accepted", ""},
		{"one that had a pod keeps its addresses", "w", good, "{addresses: [{value: 10.96.0.9}]}", []string{itsService}, "true/Accepted", "false/NoResources", "true/Accepted", "10.96.0.9 fd00::9 w.shop.svc.cluster.local"},
		{"one without anything", "w", good, "", nil, "true/Accepted", "false/AddressNotAssigned", "true/Accepted", ""},
		{"a Service of its name that is somebody's", "w", good, "", []string{strings.Replace(itsService, "gateway.istio.io/managed", "app", 1), itsPod}, "true/Accepted", "false/Invalid", "true/Accepted", ""},
		{"a listener of another protocol", "w", "{name: http, port: 15008, protocol: HTTP}", "", []string{itsService, itsPod}, "false/ListenersNotValid", "true/Programmed", "false/UnsupportedProtocol", "10.96.0.9 fd00::9 w.shop.svc.cluster.local"},
		{"a listener of another port beside the right one", "w", "{name: other, port: 15009, protocol: HBONE}, " + good, "", nil, "true/ListenersNotValid", "false/AddressNotAssigned", "false/PortUnavailable", ""},
		{"a name that no label can give", "none", good, "", nil, "false/Invalid", "false/AddressNotAssigned", "true/Accepted", ""},
		{"a name that no Service can have", "a.b", good, "", nil, "false/Invalid", "false/AddressNotAssigned", "true/Accepted", ""},
	} {
		text := fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: %s, namespace: shop, generation: 3}\nspec: {gatewayClassName: istio-waypoint, listeners: [%s]}\n", tt.name, tt.listeners)
		if tt.status != "" {
			text += "status: " + tt.status + "\n"
		}
		set := parse(t, strings.Join(append([]string{text}, tt.others...), "---\n"))
		tr := translate.New()
		_, all := tr.Update(set, nil)
		ref := objects.Ref{Kind: objects.KindGateway, Key: objects.Key{Namespace: "shop", Name: tt.name}}
		got := map[string]string{}
		for _, c := range all {
			if c.Object != ref {
				continue
			}
			if key := c.Parent.SectionName + c.Type; got[key] == "" {
				got[key] = fmt.Sprintf("%v/%s", c.Status, c.Reason)
			}
			if c.Generation != 3 || c.Message == "" {
				t.Errorf("%s: %+v", tt.sentence, c)
			}
		}
		detail := tr.Details()[ref]
		first := detail.Listeners[0]
		want := map[string]string{"": tt.accepted, "Programmed": tt.programmed, "listener": tt.listener, "addresses": tt.addresses}
		have := map[string]string{
			"": got["Accepted"], "Programmed": got["Programmed"], "listener": got[first+"Accepted"],
			"addresses": strings.Join(append(detail.Addresses, detail.Hostnames...), " "),
		}
		if d := cmp.Diff(want, have); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
	}
}

func TestWhatTheMeshSaysOfItsOwn(t *testing.T) {
	set := parse(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio-waypoint}
spec: {controllerName: istio.io/mesh-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: foreign}
spec: {controllerName: somebody.example/else}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: ambit}
spec: {controllerName: istio.io/mesh-controller}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: foreign}
spec: {controllerName: somebody.example/else}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: with-parameters}
spec: {controllerName: istio.io/mesh-controller, parametersRef: {group: "", kind: ConfigMap, name: x}}
`)
	tr := translate.New()
	_, all := tr.Update(set, nil)
	var got []string
	for _, c := range all {
		got = append(got, fmt.Sprintf("%s %s=%v/%s", c.Object, c.Type, c.Status, c.Reason))
	}
	want := []string{"GatewayClass istio-waypoint Accepted=true/Accepted", "XMesh ambit Accepted=true/Accepted", "XMesh with-parameters Accepted=false/InvalidParameters"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for ref, d := range tr.Details() {
		if len(d.Features) < 15 || !slices.IsSorted(d.Features) {
			t.Errorf("%s: features %v: want them all, sorted", ref, d.Features)
		}
	}
}

package dump

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/view"
)

const file = `
workloads:
- uid: Kubernetes//Pod/shop/client
  name: client
  namespace: shop
  workloadIps: [10.1.0.5]
  protocol: HBONE
- uid: Kubernetes//Pod/shop/web
  name: web
  namespace: shop
  serviceAccount: web
  trustDomain: example.org
  workloadIps: [10.1.0.6, "fd00::6"]
  protocol: HBONE
  status: Unhealthy
  capacity: 3
  locality: {region: r, zone: z}
  transport: h3
  udp: mesh
  waypoint: {destination: shop/waypoint.shop.svc.cluster.local, hboneMtlsPort: 15008}
  authorizationPolicies: [shop/only-client]
  services:
    shop/web.shop.svc.cluster.local: {80: 8080}
services:
- name: web
  namespace: shop
  hostname: web.shop.svc.cluster.local
  vips: [/10.96.0.5]
  cidrVips: [/10.97.0.0/16]
  ports: {80: 8080}
policies:
- name: only-client
  namespace: shop
  scope: WorkloadSelector
  action: Allow
  rules:
  - - - principals: [{Exact: cluster.local/ns/shop/sa/client}, {Presence: null}]
        notSourceIps: [10.9.0.0/16]
        destinationPorts: [8080]
        serviceAccounts: [{namespace: shop, serviceAccount: client}]
`

func TestAFileIsReadAndDumpedInIstioctlsWords(t *testing.T) {
	m, err := ParseLocal([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	store := view.NewStore()
	store.Replace(m)
	var d Dump
	d.AddView(store.View())
	b, err := json.MarshalIndent(map[string]any{"w": d.Workloads[1], "s": d.Services[0], "p": d.Policies[0]}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"workloadIps": [ "10.1.0.6", "fd00::6" ]`, `"protocol": "HBONE"`, `"trustDomain": "example.org"`, `"status": "Unhealthy"`, `"capacity": 3`,
		`"services": [ "shop/web.shop.svc.cluster.local" ]`, `"authorizationPolicies": [ "shop/only-client" ]`,
		`"waypoint": { "destination": "shop/waypoint.shop.svc.cluster.local", "hboneMtlsPort": 15008 }`,
		`"locality": { "region": "r", "zone": "z" }`, `"transport": "h3", "udp": "mesh"`,
		`"vips": [ "/10.96.0.5" ]`, `"cidrVips": [ "/10.97.0.0/16" ]`, `"ports": { "80": 8080 }`,
		`"endpoints": { "Kubernetes//Pod/shop/web": { "workloadUid": "Kubernetes//Pod/shop/web", "port": { "80": 8080 }, "status": "Unhealthy" } }`,
		`"scope": "WorkloadSelector"`, `"action": "Allow"`,
		`{ "Exact": "cluster.local/ns/shop/sa/client" }, { "Presence": "" }`, `"notSourceIps": [ "10.9.0.0/16" ]`,
		`"serviceAccounts": [ { "namespace": "shop", "serviceAccount": "client" } ]`,
	} {
		if got := strings.Join(strings.Fields(string(b)), " "); !strings.Contains(got, want) {
			t.Errorf("the dump lacks %s:\n%s", want, got)
		}
	}
	if w := m.Workloads["Kubernetes//Pod/shop/client"]; w.ServiceAccount != "default" || w.TrustDomain != "cluster.local" || w.Capacity != 1 {
		t.Errorf("defaults of %+v", w)
	}
}

func TestADumpedPolicyReadsBackAsItself(t *testing.T) {
	m, err := ParseLocal([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Policies {
		b, err := json.Marshal(policyOf(p))
		if err != nil {
			t.Fatal(err)
		}
		var back Policy
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		again, err := back.policy()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p, again, cmp.Comparer(func(a, b interface{ String() string }) bool { return a.String() == b.String() })); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

func TestAFileThatIsWrongIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"an unknown field":           "workloads: [{uid: a, colour: blue}]",
		"a workload without uid":     "workloads: [{name: a}]",
		"an unknown protocol":        "workloads: [{uid: a, protocol: HTTP}]",
		"an unknown transport":       "workloads: [{uid: a, transport: h4}]",
		"an unknown word for UDP":    "workloads: [{uid: a, udp: yes}]",
		"an address that is none":    "workloads: [{uid: a, workloadIps: [ten]}]",
		"a service key without host": "workloads: [{uid: a, services: {shop: {}}}]",
		"a port that is none":        "services: [{namespace: a, hostname: b, ports: {http: 80}}]",
		"a vip that is none":         "services: [{namespace: a, hostname: b, vips: [ten]}]",
		"an unknown scope":           "policies: [{name: a, scope: Everywhere, action: Allow}]",
		"an unknown action":          "policies: [{name: a, scope: Global, action: Audit}]",
		"an unknown comparison":      "policies: [{name: a, scope: Global, action: Deny, rules: [[[{principals: [{Regex: x}]}]]]}]",
	} {
		if _, err := ParseLocal([]byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

package translate_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
	"github.com/ambit-mesh/ambit/istiod-lite/translate/translatetest"
)

// What connections come to is told in e2e/scenario. Here is what they do not
// show: names, telemetry's labels, the shape of policies on the wire.

func parse(t *testing.T, text string) objects.Set {
	t.Helper()
	s, err := objects.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func podYAML(meta, spec, status string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: web-7d4b9c6f5-abcde, namespace: shop, %s}\nspec: {%s}\nstatus: {%s}\n", meta, spec, status)
}

const up = `podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: "True"}]`

func TestPodToWorkload(t *testing.T) {
	replicaSet := "ownerReferences: [{kind: ReplicaSet, name: web-7d4b9c6f5, controller: true}]"
	base := func(change func(*mesh.Workload)) *mesh.Workload {
		w := &mesh.Workload{
			UID: "Kubernetes//Pod/shop/web-7d4b9c6f5-abcde", Name: "web-7d4b9c6f5-abcde", Namespace: "shop",
			TrustDomain: "cluster.local", ServiceAccount: "default", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
			ClusterID: "Kubernetes", CanonicalName: "web-7d4b9c6f5-abcde", CanonicalRevision: "latest", Type: mesh.WorkloadPod, OwnerName: "web-7d4b9c6f5-abcde", Capacity: 1,
		}
		if change != nil {
			change(w)
		}
		return w
	}
	for _, tt := range []struct {
		sentence, yaml string
		want           *mesh.Workload
	}{
		{"a bare pod", podYAML("labels: {}", "", up), base(nil)},
		{"a pod without an address is not there", podYAML("labels: {}", "", ""), nil},
		{"a pod that failed is not there", podYAML("labels: {}", "", "phase: Failed, "+up), nil},
		{"a pod with only the old address field", podYAML("labels: {}", "", "podIP: 10.0.0.1"), base(func(w *mesh.Workload) { w.Unhealthy = true })},
		{"an enrolled pod", podYAML("annotations: {ambient.istio.io/redirection: enabled}", "", up), base(func(w *mesh.Workload) { w.Tunnel = mesh.TunnelHBONE })},
		{"a pod that is being enrolled", podYAML("annotations: {ambient.istio.io/redirection: pending}", "", up), base(nil)},
		{"a label is no enrolment", podYAML("labels: {istio.io/dataplane-mode: ambient}", "", up), base(nil)},
		{"a pod that speaks HBONE itself", podYAML("labels: {networking.istio.io/tunnel: \"tcp,http\"}", "", up), base(func(w *mesh.Workload) { w.Tunnel, w.NativeTunnel = mesh.TunnelHBONE, true })},
		{"a pod of the host's network", podYAML("annotations: {ambient.istio.io/redirection: enabled}", "hostNetwork: true", up), base(func(w *mesh.Workload) { w.NetworkMode = mesh.NetworkHost })},
		{"a Deployment's pod", podYAML("labels: {pod-template-hash: 7d4b9c6f5, app: shop-web, version: v2}, "+replicaSet, "", up), base(func(w *mesh.Workload) {
			w.OwnerName, w.Type, w.CanonicalName, w.CanonicalRevision = "web", mesh.WorkloadDeployment, "shop-web", "v2"
		})},
		{"a Job's pod", podYAML("ownerReferences: [{kind: Job, name: import, controller: true}]", "", up), base(func(w *mesh.Workload) {
			w.OwnerName, w.CanonicalName, w.Type = "import", "import", mesh.WorkloadJob
		})},
		{"a CronJob's pod", podYAML("ownerReferences: [{kind: Job, name: import-28123456, controller: true}]", "", up), base(func(w *mesh.Workload) {
			w.OwnerName, w.CanonicalName, w.Type = "import", "import", mesh.WorkloadCronJob
		})},
		{"an owner that does not control", podYAML("ownerReferences: [{kind: Job, name: import}]", "", up), base(nil)},
		{"names by Kubernetes' labels", podYAML(`labels: {app: a, app.kubernetes.io/name: b, app.kubernetes.io/version: "1"}`, "", up), base(func(w *mesh.Workload) { w.CanonicalName, w.CanonicalRevision = "b", "1" })},
		{"names by Istio's labels", podYAML("labels: {app.kubernetes.io/name: b, service.istio.io/canonical-name: c, service.istio.io/canonical-revision: r, service.istio.io/workload-name: w}", "", up), base(func(w *mesh.Workload) {
			w.CanonicalName, w.CanonicalRevision, w.OwnerName = "c", "r", "w"
		})},
		{"a node's locality", podYAML("labels: {}", "nodeName: n1, serviceAccountName: sa", up) + "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z, topology.istio.io/subzone: s}}\n", base(func(w *mesh.Workload) {
			w.Node, w.ServiceAccount, w.Locality = "n1", "sa", mesh.Locality{Region: "r", Zone: "z", Subzone: "s"}
		})},
		{"a pod that accepts HTTP/3", podYAML("labels: {ambit.io/tunnel-transport: h3}", "", up), base(func(w *mesh.Workload) { w.Settings.Transport = mesh.TransportH3 })},
		{"a namespace whose pods do", podYAML("labels: {}", "", up) + namespaceOver("h3"), base(func(w *mesh.Workload) { w.Settings.Transport = mesh.TransportH3 })},
		{"a pod that says otherwise than its namespace", podYAML("labels: {ambit.io/tunnel-transport: auto}", "", up) + namespaceOver("h2"), base(nil)},
		{"a transport that there is not says nothing", podYAML("labels: {ambit.io/tunnel-transport: h4}", "", up) + namespaceOver("h2"), base(func(w *mesh.Workload) { w.Settings.Transport = mesh.TransportH2 })},
		{"a captured pod whose UDP is the mesh's", podYAML("labels: {ambit.io/udp: mesh}, annotations: {ambient.istio.io/redirection: enabled, ambit.io/udp-redirection: enabled}", "", up), base(func(w *mesh.Workload) {
			w.Tunnel, w.Settings.CaptureDatagrams, w.Settings.Datagrams = mesh.TunnelHBONE, true, true
		})},
		{"one whose UDP is not captured yet", podYAML("labels: {ambit.io/udp: mesh}, annotations: {ambient.istio.io/redirection: enabled}", "", up), base(func(w *mesh.Workload) {
			w.Tunnel, w.Settings.CaptureDatagrams = mesh.TunnelHBONE, true
		})},
		{"one whose UDP was captured and is not wanted any more", podYAML("annotations: {ambient.istio.io/redirection: enabled, ambit.io/udp-redirection: enabled}", "", up), base(func(w *mesh.Workload) {
			w.Tunnel = mesh.TunnelHBONE
		})},
		{"one that is not captured", podYAML("labels: {ambit.io/udp: mesh}, annotations: {ambit.io/udp-redirection: enabled}", "", up), base(func(w *mesh.Workload) { w.Settings.CaptureDatagrams = true })},
		{"one that speaks HBONE itself", podYAML("labels: {ambit.io/udp: mesh, networking.istio.io/tunnel: http}", "", up), base(func(w *mesh.Workload) { w.Tunnel, w.NativeTunnel = mesh.TunnelHBONE, true })},
		{"a namespace whose captured pods' UDP is", podYAML("annotations: {ambient.istio.io/redirection: enabled, ambit.io/udp-redirection: enabled}", "", up) + namespaceLabel("ambit.io/udp: mesh"), base(func(w *mesh.Workload) {
			w.Tunnel, w.Settings.CaptureDatagrams, w.Settings.Datagrams = mesh.TunnelHBONE, true, true
		})},
		{"a pod of that namespace that says otherwise", podYAML("labels: {ambit.io/udp: none}, annotations: {ambient.istio.io/redirection: enabled}", "", up) + namespaceLabel("ambit.io/udp: mesh"), base(func(w *mesh.Workload) { w.Tunnel = mesh.TunnelHBONE })},
		{"a pod that names a waypoint", podYAML("labels: {istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: infra}", "", up), base(func(w *mesh.Workload) {
			w.Waypoint = mesh.GatewayAddress{Service: mesh.ServiceKey{Namespace: "infra", Hostname: "wp.infra.svc.cluster.local"}, Port: 15008}
		})},
	} {
		m, _ := translate.Translate(parse(t, tt.yaml))
		var got *mesh.Workload
		for _, w := range m.Workloads {
			got = w
		}
		if d := cmp.Diff(tt.want, got, compareAddr, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
	}
}

func namespaceOver(transport string) string {
	return namespaceLabel("ambit.io/tunnel-transport: " + transport)
}

func namespaceLabel(label string) string {
	return "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {" + label + "}}\n"
}

func TestService(t *testing.T) {
	yaml := func(meta, spec string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop, %s}\nspec: {selector: {app: web}, %s}\n", meta, spec)
	}
	for _, tt := range []struct{ sentence, meta, spec, want string }{
		{"ports and their protocols", "labels: {}", `clusterIP: 10.96.0.1, ports: [{port: 80, name: http}, {port: 81, name: grpc-x, targetPort: 90}, {port: 82, appProtocol: kubernetes.io/h2c, targetPort: web}, {port: 83, name: https}, {port: 84, name: redis}, {port: 85, name: grpc-web-x}, {port: 86, protocol: UDP}]`,
			"10.96.0.1/32 [{80 80 1} {81 90 3} {82 0 2} {83 83 5} {84 84 0} {85 85 1}] {[] 0 false} families 0 UDP [{86 86 0}]"},
		{"ports of UDP", "labels: {}", `clusterIP: 10.96.0.1, ports: [{port: 53, protocol: UDP, targetPort: 5353}, {port: 443, protocol: UDP, targetPort: quic}, {port: 53, targetPort: 5353}]`,
			"10.96.0.1/32 [{53 5353 0}] {[] 0 false} families 0 UDP [{53 5353 0} {443 0 0}]"},
		{"both families", "labels: {}", `clusterIPs: ["10.96.0.1", "fd00::1"], ipFamilies: [IPv4, IPv6]`, "10.96.0.1/32,fd00::1/128 [] {[] 0 false} families 3"},
		{"headless", "labels: {}", `clusterIP: None, ipFamilies: [IPv6], publishNotReadyAddresses: true`, " [] {[] 0 true} families 2"},
		{"its own distribution beats its annotation", "annotations: {networking.istio.io/traffic-distribution: PreferSameNode}", `clusterIP: 10.96.0.1, trafficDistribution: PreferSameZone`, "10.96.0.1/32 [] {[6 1 2] 2 false} families 0"},
		{"its annotation", "annotations: {networking.istio.io/traffic-distribution: PreferSameNode}", `clusterIP: 10.96.0.1`, "10.96.0.1/32 [] {[6 1 2 3 4] 2 false} families 0"},
		{"a distribution of a later Kubernetes", "labels: {}", `clusterIP: 10.96.0.1, trafficDistribution: PreferMoon`, "10.96.0.1/32 [] {[] 0 false} families 0"},
		{"the node only", "labels: {}", `clusterIP: 10.96.0.1, internalTrafficPolicy: Local, trafficDistribution: PreferClose`, "10.96.0.1/32 [] {[4] 1 false} families 0"},
	} {
		m, _ := translate.Translate(parse(t, yaml(tt.meta, tt.spec)))
		s := m.Services[mesh.ServiceKey{Namespace: "shop", Hostname: "web.shop.svc.cluster.local"}]
		if s == nil {
			t.Errorf("%s: no service", tt.sentence)
			continue
		}
		var vips []string
		for _, a := range s.Addresses {
			vips = append(vips, a.Prefix.String())
		}
		got := fmt.Sprintf("%s %v %v families %d", strings.Join(vips, ","), s.Ports, s.LoadBalancing, s.Families)
		if len(s.DatagramPorts) > 0 {
			got += fmt.Sprintf(" UDP %v", s.DatagramPorts)
		}
		if got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.sentence, got, tt.want)
		}
	}
}

// rules is the shape of a policy: rules by "|", clauses by "&", matches by ",".
func rules(p *mesh.Policy) string {
	var out []string
	for _, r := range p.Rules {
		var clauses []string
		for _, c := range r.Clauses {
			var matches []string
			for _, m := range c.Matches {
				var attributes []string
				add := func(name string, n int, list any) {
					if n > 0 {
						attributes = append(attributes, fmt.Sprintf("%s%v", name, list))
					}
				}
				add("principals", len(m.Principals), m.Principals)
				add("notPrincipals", len(m.NotPrincipals), m.NotPrincipals)
				add("namespaces", len(m.Namespaces), m.Namespaces)
				add("accounts", len(m.ServiceAccounts), m.ServiceAccounts)
				add("sources", len(m.SourceIPs), m.SourceIPs)
				add("notSources", len(m.NotSourceIPs), m.NotSourceIPs)
				add("ports", len(m.DestinationPorts), m.DestinationPorts)
				matches = append(matches, strings.Join(attributes, " "))
			}
			clauses = append(clauses, strings.Join(matches, ", "))
		}
		out = append(out, strings.Join(clauses, " & "))
	}
	return strings.Join(out, " | ")
}

func TestAuthorizationPolicyShapes(t *testing.T) {
	for _, tt := range []struct{ sentence, spec, want string }{
		{"from and to are clauses, alternatives are matches", `{rules: [{from: [{source: {principals: [td/ns/a/sa/b]}}, {source: {namespaces: ["x*"]}}], to: [{operation: {ports: ["80", "81"]}}]}]}`,
			"principals[td/ns/a/sa/b], namespaces[x*] & ports[80 81]"},
		{"every when is a clause", `{rules: [{when: [{key: source.ip, values: [10.0.0.0/8], notValues: [10.1.0.0/16]}, {key: destination.port, values: ["80"]}]}]}`,
			"sources[10.0.0.0/8] notSources[10.1.0.0/16] & ports[80]"},
		{"blocks lose their host bits, and their IPv6 form", `{rules: [{from: [{source: {ipBlocks: [10.1.2.3/8, "::ffff:10.0.0.0/104", 192.0.2.1]}}]}]}`,
			"sources[10.0.0.0/8 10.0.0.0/8 192.0.2.1/32]"},
		{"a trust domain is the beginning of a principal", `{rules: [{from: [{source: {trustDomains: [td, "pre*"], notTrustDomains: [bad]}}]}]}`,
			"principals[td/* pre*] notPrincipals[bad/*]"},
		{"principals and trust domains of one source must both hold", `{rules: [{from: [{source: {principals: ["*/sa/b"], trustDomains: [td]}}, {source: {namespaces: [n]}}], to: [{operation: {ports: ["80"]}}]}]}`,
			"principals[*/sa/b] & principals[td/*] & ports[80] | namespaces[n] & ports[80]"},
		{"an account without a namespace is of the policy's", `{rules: [{from: [{source: {serviceAccounts: [a, n/b]}}]}]}`, "accounts[{shop a} {n b}]"},
		{"the mesh's trust domain", `{rules: [{from: [{source: {principals: [cluster.local/ns/a/sa/b]}}]}]}`, "principals[cluster.local/ns/a/sa/b]"},
		{"an empty rule", `{rules: [{}]}`, ""},
	} {
		spec := strings.ReplaceAll(tt.spec, "[n]", `["n"]`)
		m, cs := translate.Translate(parse(t, "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: "+spec+"\n"))
		p := m.Policies[mesh.PolicyKey{Namespace: "shop", Name: "p"}]
		if p == nil || len(cs) != 1 || !cs[0].Status {
			t.Errorf("%s: policy %v, conditions %v", tt.sentence, p, cs)
			continue
		}
		if got := rules(p); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.sentence, got, tt.want)
		}
	}
}

func TestPolicyScopes(t *testing.T) {
	for _, tt := range []struct {
		sentence, namespace, selector string
		want                          mesh.PolicyScope
	}{
		{"without a selector", "shop", "", mesh.ScopeNamespace},
		{"with an empty selector", "shop", "selector: {}", mesh.ScopeNamespace},
		{"in the root namespace", "istio-system", "", mesh.ScopeGlobal},
		{"with a selector", "shop", "selector: {matchLabels: {app: web}}", mesh.ScopeSelector},
		{"with a selector in the root namespace", "istio-system", "selector: {matchLabels: {app: web}}", mesh.ScopeSelector},
	} {
		m, _ := translate.Translate(parse(t, fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: %s}\nspec: {%s}\n", tt.namespace, tt.selector)))
		if p := m.Policies[mesh.PolicyKey{Namespace: tt.namespace, Name: "p"}]; p == nil || p.Scope != tt.want {
			t.Errorf("%s: policy %+v, want scope %d", tt.sentence, p, tt.want)
		}
	}
}

func TestUpdateKeepsWhatItDoesNotTouch(t *testing.T) {
	set := translatetest.Cluster(500)
	tr := translate.New()
	before, _ := tr.Update(set, nil)
	uid := "Kubernetes//Pod/" + translatetest.PodKey(42).String()
	was := before.Workloads[uid]
	after, _ := tr.Update(set, []objects.Ref{translatetest.ToggleReady(&set, 42)})
	if before.Workloads[uid] != was || was.Unhealthy || !after.Workloads[uid].Unhealthy {
		t.Error("an Update changed what an earlier one had given")
	}
	changed := 0
	for uid, w := range after.Workloads {
		if before.Workloads[uid] != w {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d workloads were made again for one pod", changed)
	}
	again, _ := tr.Update(set, nil)
	for uid, w := range again.Workloads {
		if after.Workloads[uid] != w {
			t.Fatalf("%s was made again though nothing changed", uid)
		}
	}
	if len(after.Workloads) != 500 || len(after.Services) != 50 {
		t.Errorf("%d workloads and %d services, want 500 and 50", len(after.Workloads), len(after.Services))
	}
	// The world is what it says to be.
	w := after.Workloads["Kubernetes//Pod/"+translatetest.PodKey(200).String()]
	want := []mesh.PolicyKey{{Namespace: "istio-system", Name: "istio_converted_static_strict"}, {Namespace: "ns-001", Name: "deny-app-00020"}}
	if d := cmp.Diff(want, w.Policies); d != "" {
		t.Errorf("policies of a pod (-want +got):\n%s", d)
	}
}

package doctor

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/internal/health"
)

var (
	now     = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	rootOne = health.Root{Fingerprint: "one", From: now.AddDate(-1, 0, 0), Until: now.AddDate(9, 0, 0)}
	rootTwo = health.Root{Fingerprint: "two", From: now.AddDate(-1, 0, 0), Until: now.AddDate(9, 0, 0)}
)

// healthy is a mesh of two nodes with nothing wrong.
func healthy() Facts {
	roots := func() []health.Root { return []health.Root{rootOne} }
	there := Presence{Pod: "p", Ready: true}
	f := Facts{
		Now: now, ServerVersion: "v1.37.2",
		CRDs: map[string]bool{"AuthorizationPolicy": true, "PeerAuthentication": true, "Gateway": true},
		Mesh: Mesh{TrustDomain: "cluster.local"},
		Parts: []Part{
			{"istiod", 1, 1, []string{"localhost/ambit/istiod:dev"}}, {"istio-cni-node", 2, 2, []string{"localhost/ambit/cni:dev"}},
			{"ztunnel", 2, 2, []string{"localhost:5000/ambit/ztunnel:dev"}},
		},
		Namespaces: []Namespace{{Name: "shop", HasRootCert: true, Roots: roots(), Pods: 4, Enrolled: 4}},
		Waypoints:  []WaypointStatus{{"shop", "waypoint", true, "The waypoint is ready."}},
		Signing:    Signing{Secret: "istio-ca-secret", Certificate: roots(), Roots: roots(), Published: roots()},
		Audiences:  []Audience{{"DaemonSet ztunnel", "istio-ca", []string{"istio-ca"}}},
		Planes:     []Plane{{Heard{Pod: "istio-system/istiod-x", Node: "n1"}, health.ControlPlane{Now: now, TrustDomain: "cluster.local", Roots: roots()}}},
	}
	for _, n := range []string{"n1", "n2"} {
		other := map[string]string{"n1": "n2", "n2": "n1"}[n]
		f.Nodes = append(f.Nodes, Node{n, "6.1.0-18-amd64", "linux", "containerd://2.4.2", true, there, there})
		f.Agents = append(f.Agents, Agent{Heard{Pod: "istio-system/istio-cni-node-" + n, Node: n}, health.Agent{
			Node: n, Now: now, Ztunnels: 1, Plugin: health.Plugin{InPlace: true},
			Pods: []health.Pod{{Pod: "shop/web", Phase: "captured", Verified: now.Add(-5 * time.Second)}},
		}})
		f.Proxies = append(f.Proxies, Proxy{Heard{Pod: "istio-system/ztunnel-" + n, Node: n}, "ztunnel", health.Proxy{
			Node: n, Now: now, ControlPlane: health.Connection{Address: "istiod:15012", Connected: true}, Roots: roots(),
			Identities: []health.Identity{{ID: "spiffe://cluster.local/ns/shop/sa/web", TrustDomain: "cluster.local", State: "Available"}},
		}, []health.Reach{{Node: other, From: "shop/web", To: "shop/db", Address: "10.0.0.1:15008"}}})
	}
	return f
}

// TestEachFaultIsNamedWithItsFix is the faults that the project promises to
// name: each alone in an otherwise healthy mesh, so that the finding is the
// only one, or the first of those that follow from it.
func TestEachFaultIsNamedWithItsFix(t *testing.T) {
	for _, tt := range []struct {
		fault  string
		plant  func(*Facts)
		level  Level
		check  string
		detail string
		fix    string
	}{
		{"expired root", func(f *Facts) { f.Signing.Roots[0].Until = now.Add(-time.Hour) }, Fail,
			"root certificate", "the root of Secret istio-ca-secret expired", "ambit ca rotate"},
		{"clock skew", func(f *Facts) { f.Agents[1].Off, f.Agents[1].Doubt = 10*time.Minute, time.Second }, Fail,
			"clock of n2", "10m0s ahead of", "NTP"},
		{"15008 blocked between nodes", func(f *Facts) { f.Proxies[0].Reach[0].Error, f.Proxies[0].Reach[0].Silent = "i/o timeout", true }, Fail,
			"tunnel n1 → n2", "port 15008 is blocked", "let TCP port 15008 pass"},
		{"agent missing on a node", func(f *Facts) { f.Nodes[1].Agent = Presence{} }, Fail,
			"node agent on n2", "none runs there", "nodeSelector"},
		{"ztunnel missing on a node", func(f *Facts) { f.Nodes[1].Ztunnel = Presence{} }, Fail,
			"ztunnel on n2", "none runs there", "nodeSelector"},
		{"plugin not in the conflist", func(f *Facts) { f.Agents[1].Plugin = health.Plugin{Error: "no network configuration"} }, Fail,
			"plugin on n2", "is not in the node's CNI configuration", "/etc/cni/net.d"},
		{"rules missing in a pod", func(f *Facts) {
			f.Agents[0].Pods[0].Mended, f.Agents[0].Pods[0].Last, f.Agents[0].Pods[0].Drift = 1, now.Add(-time.Minute), "the table is missing"
		}, Warn, "rules of shop/web", "the table is missing", "find what else changes nftables"},
		{"wrong trust domain", func(f *Facts) { f.Mesh.TrustDomain, f.Planes[0].TrustDomain = "corp.example", "corp.example" }, Fail,
			"trust domain", "which is not of the mesh's trust domain \"corp.example\"", "trustDomainAliases"},
		{"wrong trust domain in a policy", func(f *Facts) { f.Strangers = []Stranger{{"shop/p", "old.example"}} }, Warn,
			"trust domain", "policy shop/p names principals of trust domain \"old.example\"", "trustDomainAliases"},
		{"two roots out of step", func(f *Facts) { f.Proxies[1].Roots[0] = rootTwo }, Fail,
			"roots", "ztunnel istio-system/ztunnel-n2", "both roots before the old one goes"},
		{"definition missing", func(f *Facts) { f.CRDs["AuthorizationPolicy"] = false }, Fail,
			"definition", "AuthorizationPolicy is missing", "ambit install"},
		{"token audience wrong", func(f *Facts) {
			f.Audiences[0].Have = "vault"
			f.Proxies[0].ControlPlane = health.Connection{Address: "istiod:15012", Error: "rpc error: code = Unauthenticated desc = request authenticate failure"}
		}, Fail, "token audience", "DaemonSet ztunnel has tokens for \"vault\", istiod takes those for istio-ca", "audience of its volume"},
		{"RBAC denied", func(f *Facts) { f.Rights = []Right{{"istio-system/istiod", "watch", "pods"}} }, Fail,
			"rights of istio-system/istiod", "watch pods", "ambit install"},
		{"webhook denied", func(f *Facts) {
			f.Denials = []Denial{{"", "AuthorizationPolicies", `admission webhook "no.example" denied the request`}}
		}, Fail,
			"admission", "no.example", "validatingwebhookconfigurations"},
		{"DNS proxy port taken", func(f *Facts) {
			f.Proxies[0].Unserved = []health.Unserved{{Pod: "shop/dnsmasq", Error: "listening on [::]:15053: address already in use"}}
		}, Fail, "DNS proxy of shop/dnsmasq", "15053: address already in use", "dns-capture"},
		{"pod stuck waiting for the agent", func(f *Facts) {
			f.Stuck = []Stuck{{"shop/late", "n2", now.Add(-time.Minute), "the node agent does not answer"}}
		}, Fail,
			"pod shop/late", "waits for the node agent on n2 for 1m0s: the node agent does not answer", "bring the node agent"},
		{"kernel too old for a feature", func(f *Facts) { f.Nodes[0].Kernel = "5.10.0-21" }, Warn,
			"node n1", "cannot hand over queued connections", "from 5.14 on"},
	} {
		f := healthy()
		tt.plant(&f)
		var first *Finding
		for _, found := range Judge(f) {
			if found.Level != OK {
				first = &found
				break
			}
		}
		if first == nil || first.Level != tt.level || first.Check != tt.check || !strings.Contains(first.Detail, tt.detail) || !strings.Contains(first.Fix, tt.fix) {
			t.Errorf("%s: got %+v", tt.fault, first)
		}
	}
}

func TestAClockIsOnlyWrongBeyondDoubtAndToldOnceANode(t *testing.T) {
	f := healthy()
	f.Agents[0].Off, f.Agents[0].Doubt = 12*time.Second, 3*time.Second
	if found := judgeClocks(f); len(found) != 0 {
		t.Errorf("within doubt: %+v", found)
	}
	f.Agents[0].Off, f.Proxies[0].Off = -20*time.Second, -21*time.Second
	found := judgeClocks(f)
	if len(found) != 1 || found[0].Level != Warn || !strings.Contains(found[0].Detail, "20s behind") {
		t.Errorf("beyond doubt: %+v", found)
	}
}

func TestARootThatEndedAmongOthersIsNoFault(t *testing.T) {
	f := healthy()
	old := rootTwo
	old.Until = now.Add(-time.Hour)
	for _, roots := range []*[]health.Root{&f.Signing.Roots, &f.Signing.Published, &f.Planes[0].Roots, &f.Proxies[0].Roots, &f.Proxies[1].Roots, &f.Namespaces[0].Roots} {
		*roots = append(*roots, old)
	}
	for _, found := range judgeTrust(f) {
		if found.Level != OK {
			t.Errorf("%+v", found)
		}
	}
}

func TestWhichPrincipalsAreOfStrangers(t *testing.T) {
	policy := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"namespace": "shop", "name": "p"},
		"spec": map[string]any{"rules": []any{map[string]any{"from": []any{map[string]any{"source": map[string]any{
			"principals":    []any{"cluster.local/ns/a/sa/b", "*/ns/a/sa/b", "*", "ours.example/ns/a/sa/b", "other.example/ns/a/sa/b", "other.example/ns/a/sa/c"},
			"notPrincipals": []any{"third.example/ns/a/sa/b"},
		}}}}}},
	}}
	got := strangers(policy, Mesh{TrustDomain: "cluster.local", Aliases: []string{"ours.example"}})
	if len(got) != 2 || got[0] != (Stranger{"shop/p", "other.example"}) || got[1] != (Stranger{"shop/p", "third.example"}) {
		t.Errorf("got %+v", got)
	}
}

func TestWhatTheManifestsGiveIsAskedFor(t *testing.T) {
	all, err := needs()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, n := range all {
		found[n.account+" "+n.namespace+" "+n.verb+" "+n.String()] = true
	}
	for _, want := range []string{
		"istio-system/istiod  watch pods", "istio-system/istiod  create tokenreviews.authentication.k8s.io", "istio-system/istiod istio-system watch secrets cacerts",
		"istio-system/istio-cni  patch pods/status",
	} {
		if !found[want] {
			t.Errorf("%q is not asked for", want)
		}
	}
	if len(all) < 40 || len(all) > 150 {
		t.Errorf("%d questions", len(all))
	}
}

func TestAPodIsStuckByTheNewestWordOfThePlugin(t *testing.T) {
	event := func(uid, message string, ago time.Duration) corev1.Event {
		return corev1.Event{InvolvedObject: corev1.ObjectReference{UID: types.UID(uid)}, Message: message, LastTimestamp: metav1.NewTime(now.Add(-ago))}
	}
	events := []corev1.Event{
		event("u", `failed: plugin type="ambit-cni" failed (add): the node agent does not answer`, time.Minute),
		event("u", `failed: plugin type="ambit-cni" failed (add): ztunnel is away`, time.Second),
		event("u", `failed: plugin type="bridge" failed`, 0), event("v", `plugin type="ambit-cni": other`, 0),
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "late", UID: "u"}, Spec: corev1.PodSpec{NodeName: "n1"}}
	if s, held := stuck(p, events); !held || s.Pod != "shop/late" || s.Says != "ztunnel is away" {
		t.Errorf("got %+v, %v", s, held)
	}
	p.UID = "w"
	if _, held := stuck(p, events); held {
		t.Error("a pod of which nothing is said is stuck")
	}
}

func TestAnAdmissionThatRefusesIsAFactAndAnotherErrorIsNot(t *testing.T) {
	var f Facts
	if err := f.denied("x", errors.New(`admission webhook "a" denied the request`)); err != nil || len(f.Denials) != 1 {
		t.Errorf("%v, %+v", err, f.Denials)
	}
	if err := f.denied("x", errors.New("forbidden: user cannot create")); err == nil || len(f.Denials) != 1 {
		t.Errorf("%v, %+v", err, f.Denials)
	}
}

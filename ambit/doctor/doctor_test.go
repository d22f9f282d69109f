package doctor

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/internal/health"
)

func TestAHealthyMeshHasNothingToSay(t *testing.T) {
	for _, f := range Judge(healthy()) {
		if f.Level != OK || f.Fix != "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestEachTroubleIsFoundAndAFixTold(t *testing.T) {
	for _, tt := range []struct {
		trouble string
		change  func(*Facts)
		level   Level
		check   string
	}{
		{"an old Kubernetes", func(f *Facts) { f.ServerVersion = "v1.28.9" }, Fail, "kubernetes"},
		{"a version that cannot be read", func(f *Facts) { f.ServerVersion = "next" }, Warn, "kubernetes"},
		{"a node that is not ready", func(f *Facts) { f.Nodes[0].Ready = false }, Fail, "node n1"},
		{"a Windows node", func(f *Facts) { f.Nodes[0].OS = "windows" }, Warn, "node n1"},
		{"a kernel without what we need", func(f *Facts) { f.Nodes[0].Kernel = "4.19.0" }, Fail, "node n1"},
		{"a kernel that loses connections at upgrades", func(f *Facts) { f.Nodes[0].Kernel = "5.10.0-21" }, Warn, "node n1"},
		{"no node", func(f *Facts) { f.Nodes = nil }, Fail, "nodes"},
		{"another mesh", func(f *Facts) { f.Foreign = []string{"Deployment istiod"} }, Fail, "other mesh"},
		{"nothing installed", func(f *Facts) { f.Parts = []Part{{Name: "istiod"}, {Name: "ztunnel"}} }, Warn, "installation"},
		{"half installed", func(f *Facts) { f.Parts[2] = Part{Name: "ztunnel"} }, Fail, "ztunnel"},
		{"a part that is not ready", func(f *Facts) { f.Parts[1].Ready = 0 }, Fail, "istio-cni-node"},
		{"an upgrade half way", func(f *Facts) { f.Parts[0].Images = []string{"localhost/ambit/istiod:v2"} }, Warn, "versions"},
		{"a definition gone", func(f *Facts) { f.CRDs["Gateway"] = false }, Warn, "definition"},
		{"a pod left out", func(f *Facts) { f.Namespaces[0].Left = []string{"db-0"} }, Fail, "namespace shop"},
		{"a host-network pod", func(f *Facts) { f.Namespaces[0].HostNetwork = []string{"agent"} }, Warn, "namespace shop"},
		{"a network policy in the way", func(f *Facts) { f.Namespaces[0].Blocking = []string{"web-only"} }, Warn, "namespace shop"},
		{"no root certificate", func(f *Facts) { f.Namespaces[0].HasRootCert = false }, Warn, "namespace shop"},
		{"a policy that is not enforced as written", func(f *Facts) { f.Policies = []PolicyStatus{{"shop", "p", "ZtunnelAccepted", "methods"}} }, Warn, "policy shop/p"},
		{"a waypoint that is not ready", func(f *Facts) { f.Waypoints[0].Ready = false }, Fail, "waypoint shop/waypoint"},
		{"something that could not be read", func(f *Facts) { f.Unread = []Unread{{"nodes", "forbidden"}} }, Fail, "nodes"},
		{"an istiod that does not answer", func(f *Facts) { f.Planes[0].Why = "timed out" }, Fail, "istiod"},
		{"a ztunnel that does not answer", func(f *Facts) { f.Proxies[1].Why = "timed out" }, Fail, "ztunnel on n2"},
		{"an agent that does not answer", func(f *Facts) { f.Agents[1].Why = "timed out" }, Fail, "node agent on n2"},
		{"a ztunnel on its own", func(f *Facts) { f.Proxies[1].ControlPlane.Connected = false }, Fail, "ztunnel on n2"},
		{"a ztunnel that the agent does not know", func(f *Facts) { f.Agents[1].Ztunnels = 0 }, Fail, "ztunnel on n2"},
		{"an identity without a certificate", func(f *Facts) {
			f.Proxies[0].Identities[0] = health.Identity{ID: "x", TrustDomain: "cluster.local", State: "Unavailable", Error: "no"}
		}, Fail, "ztunnel on n1"},
		{"a ztunnel that is not let in", func(f *Facts) {
			f.Proxies[0].ControlPlane = health.Connection{Address: "i:1", Error: "rpc error: code = Unauthenticated"}
		}, Fail, "token"},
		{"a root that ends soon", func(f *Facts) { f.Planes[0].Roots[0].Until = now.Add(time.Hour) }, Warn, "root certificate"},
		{"a rotation under way", func(f *Facts) { f.Proxies[1].Roots = append([]health.Root{rootTwo}, f.Proxies[1].Roots...) }, Warn, "roots"},
		{"rules that cannot be mended", func(f *Facts) { f.Agents[0].Pods[0].Error = "permission denied" }, Fail, "rules of shop/web"},
		{"rules that nobody looks at", func(f *Facts) { f.Agents[0].Pods[0].Verified = now.Add(-time.Hour) }, Warn, "rules of shop/web"},
		{"a pod whose ports are taken", func(f *Facts) {
			f.Proxies[0].Unserved = []health.Unserved{{Pod: "shop/web", Error: "listening on [::]:15008: in use"}}
		}, Fail, "pod shop/web"},
		{"a plugin that somebody takes out", func(f *Facts) { f.Agents[0].Plugin.Restored, f.Agents[0].Plugin.Last = 2, now.Add(-time.Minute) }, Warn, "plugin on n1"},
		{"a service whose waypoint is missing", func(f *Facts) { f.Unbound = []PolicyStatus{{"shop", "web", "WaypointIsNotReady", "gone"}} }, Warn, "service shop/web"},
	} {
		f := healthy()
		tt.change(&f)
		findings := Judge(f)
		var got *Finding
		for i := range findings {
			if findings[i].Level != OK && findings[i].Check == tt.check {
				got = &findings[i]
			}
		}
		if got == nil || got.Level != tt.level || got.Fix == "" {
			t.Errorf("%s: want %s about %q with a fix, got %+v", tt.trouble, tt.level, tt.check, findings)
		}
		if Failed(findings) != (tt.level == Fail) {
			t.Errorf("%s: Failed is %v", tt.trouble, Failed(findings))
		}
	}
}

// TestWhatGoesWithItsNamespaceIsNoFault: pods and waypoints of a namespace that
// is being deleted go one by one, and the same faults elsewhere are still told.
func TestWhatGoesWithItsNamespaceIsNoFault(t *testing.T) {
	for _, lives := range []bool{true, false} {
		f := healthy()
		f.Waypoints[0].Ready = false
		f.Namespaces[0].Left = []string{"db-0"}
		f.Unbound = []PolicyStatus{{"shop", "web", "WaypointIsNotReady", "gone"}}
		f.Policies = []PolicyStatus{{"shop", "p", "ZtunnelAccepted", "methods"}}
		f.Denials = []Denial{{"shop", "pods of ReplicaSet waypoint-x", "forbidden: no service account waypoint"}}
		f.Stuck = []Stuck{{Pod: "shop/new", Node: "n1", Since: now, Says: "the agent does not answer"}}
		f.Proxies = append(f.Proxies, Proxy{Heard: Heard{Pod: "shop/waypoint-x", Node: "n1", Why: "refused"}, Kind: "waypoint"})
		f.keepOf(map[string]bool{"istio-system": true, "shop": lives})
		told := slices.DeleteFunc(Judge(f), func(f Finding) bool { return f.Level == OK })
		if want := map[bool]int{true: 7}[lives]; len(told) != want {
			t.Errorf("the namespace lives: %v; want %d findings, got %+v", lives, want, told)
		}
	}
}

func TestWhichPodsCountAsLeftOut(t *testing.T) {
	pod := func(name string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}, Labels: map[string]string{}}}
		p.Status.Phase = corev1.PodRunning
		change(p)
		return p
	}
	n := Namespace{Name: "shop"}
	now := metav1.Now()
	for _, p := range []*corev1.Pod{
		pod("captured", func(p *corev1.Pod) { p.Annotations[redirection] = "enabled" }),
		pod("pending", func(p *corev1.Pod) { p.Annotations[redirection] = "pending" }),
		pod("left", func(*corev1.Pod) {}),
		pod("host", func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
		pod("opted-out", func(p *corev1.Pod) { p.Labels[modeLabel] = modeNone }),
		pod("sidecar", func(p *corev1.Pod) { p.Annotations[sidecarStatus] = "{}" }),
		pod("done", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod("going", func(p *corev1.Pod) { p.DeletionTimestamp = &now }),
	} {
		n.count(p)
	}
	want := Namespace{Name: "shop", Pods: 3, Enrolled: 1, Left: []string{"pending", "left"}, HostNetwork: []string{"host"}}
	if diff := cmp.Diff(want, n); diff != "" {
		t.Error(diff)
	}
}

func TestWhichNetworkPoliciesBlockTheTunnel(t *testing.T) {
	port := func(p int) *intstr.IntOrString { v := intstr.FromInt32(int32(p)); return &v }
	rule := func(ports ...networkingv1.NetworkPolicyPort) networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{Ports: ports}
	}
	end := int32(16000)
	for _, tt := range []struct {
		policy string
		rules  []networkingv1.NetworkPolicyIngressRule
		want   bool
	}{
		{"admits only 80", []networkingv1.NetworkPolicyIngressRule{rule(networkingv1.NetworkPolicyPort{Port: port(80)})}, true},
		{"admits 80 and 15008", []networkingv1.NetworkPolicyIngressRule{rule(networkingv1.NetworkPolicyPort{Port: port(80)}, networkingv1.NetworkPolicyPort{Port: port(15008)})}, false},
		{"admits a range over 15008", []networkingv1.NetworkPolicyIngressRule{rule(networkingv1.NetworkPolicyPort{Port: port(15000), EndPort: &end})}, false},
		{"admits every port of some pods", []networkingv1.NetworkPolicyIngressRule{rule()}, false},
		{"closes everything", nil, false},
	} {
		np := &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Ingress: tt.rules}}
		if got := blocksTunnel(np); got != tt.want {
			t.Errorf("a policy that %s: blocks is %v, want %v", tt.policy, got, tt.want)
		}
	}
}

func TestConditionsThatAreNotTrueAreTold(t *testing.T) {
	obj := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"namespace": "shop", "name": "p"},
		"status": map[string]any{"conditions": []any{
			map[string]any{"type": "A", "status": "True", "message": "fine"},
			map[string]any{"type": "B", "status": "False", "message": "methods need a waypoint\n"},
		}},
	}}
	want := []PolicyStatus{{"shop", "p", "B", "methods need a waypoint"}}
	if diff := cmp.Diff(want, conditions(obj)); diff != "" {
		t.Error(diff)
	}
}

func TestServicesThatPassByTheirWaypointAreTold(t *testing.T) {
	service := func(status metav1.ConditionStatus) *corev1.Service {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
		s.Status.Conditions = []metav1.Condition{{Type: "Other", Status: metav1.ConditionFalse}, {Type: waypointBound, Status: status, Reason: "WaypointIsNotReady", Message: "gone"}}
		return s
	}
	if got := unbound(service(metav1.ConditionTrue)); got != nil {
		t.Errorf("one that is bound: %v", got)
	}
	if d := cmp.Diff([]PolicyStatus{{"shop", "web", "WaypointIsNotReady", "gone"}}, unbound(service(metav1.ConditionFalse))); d != "" {
		t.Error(d)
	}
}

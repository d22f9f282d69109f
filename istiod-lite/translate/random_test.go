package translate_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apinet "istio.io/api/networking/v1alpha3"
	apisec "istio.io/api/security/v1beta1"
	typev1 "istio.io/api/type/v1beta1"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// chance makes random objects with few names, so that they meet.
type chance struct{ *rand.Rand }

func (c chance) of(texts ...string) string { return texts[c.IntN(len(texts))] }

func (c chance) labels() map[string]string {
	return map[string]string{"app": c.of("a", "b"), "tier": c.of("x", "y")}
}

func (c chance) selector() map[string]string {
	switch c.IntN(4) {
	case 0:
		return nil
	case 1:
		return c.labels()
	case 2:
		return map[string]string{"tier": c.of("x", "y")}
	}
	return map[string]string{"app": c.of("a", "b")}
}

func (c chance) meta(names ...string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: c.of("n1", "n2", "istio-system"), Name: c.of(names...), Labels: c.labels(),
		CreationTimestamp: metav1.NewTime(time.Unix(int64(c.IntN(3)), 0)),
	}
}

func (c chance) pod() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: c.meta("p1", "p2", "p3")}
	switch c.IntN(8) {
	case 0:
		p.Labels["istio.io/use-waypoint"] = c.of("wp", "none")
	case 1, 2:
		p.Labels["gateway.networking.k8s.io/gateway-name"] = c.of("wp", "auto-waypoint")
	}
	if c.IntN(2) == 0 {
		p.Annotations = map[string]string{"ambient.istio.io/redirection": "enabled"}
	}
	p.Spec = corev1.PodSpec{
		NodeName: c.of("m1", "m2"), HostNetwork: c.IntN(8) == 0,
		Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: c.of("http", "other"), ContainerPort: int32(8000 + c.IntN(2))}}}},
	}
	p.Status.Phase = corev1.PodPhase(c.of("Running", "Running", "Pending", "Succeeded"))
	p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprint("10.0.0.", c.IntN(4))}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionStatus(c.of("True", "False"))}}
	return p
}

func (c chance) service() *corev1.Service {
	s := &corev1.Service{ObjectMeta: c.meta("s1", "s2", "wp")}
	if c.IntN(3) == 0 {
		s.Labels["istio.io/use-waypoint"] = c.of("wp", "none", "auto")
		s.Labels["istio.io/use-waypoint-namespace"] = c.of("n1", "n2")
	}
	s.Spec = corev1.ServiceSpec{
		Type: corev1.ServiceType(c.of("ClusterIP", "ClusterIP", "ExternalName")), Selector: c.selector(), ClusterIP: c.of("10.96.0.1", "10.96.0.2", "None"),
		Ports: []corev1.ServicePort{{Name: c.of("http", "tcp", "other"), Port: 80, TargetPort: intstr.FromString(c.of("http", "other"))}},
	}
	if c.IntN(3) == 0 {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	}
	if c.IntN(3) == 0 {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: c.of("more", "tls"), Port: 81})
	}
	return s
}

func (c chance) slice() *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: c.meta("e1", "e2"), AddressType: discoveryv1.AddressTypeIPv4}
	s.Labels[discoveryv1.LabelServiceName] = c.of("s1", "s2", "wp")
	name, port := "http", int32(9000)
	s.Ports = []discoveryv1.EndpointPort{{Name: &name, Port: &port}}
	for range c.IntN(3) {
		e := discoveryv1.Endpoint{Addresses: []string{fmt.Sprint("192.0.2.", c.IntN(3))}}
		if c.IntN(2) == 0 {
			e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: c.of("p1", "p2", "p3")}
		} else {
			node := c.of("m1", "m2")
			e.NodeName = &node
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func (c chance) policy() *security.AuthorizationPolicy {
	ap := &security.AuthorizationPolicy{ObjectMeta: c.meta("ap1", "ap2")}
	if sel := c.selector(); sel != nil {
		ap.Spec.Selector = &typev1.WorkloadSelector{MatchLabels: sel}
	}
	ap.Spec.Action = apisec.AuthorizationPolicy_Action(c.IntN(4))
	ap.Spec.Rules = []*apisec.Rule{{To: []*apisec.Rule_To{{Operation: &apisec.Operation{Ports: []string{c.of("80", "bad")}}}}}}
	return ap
}

func (c chance) peer() *security.PeerAuthentication {
	pa := &security.PeerAuthentication{ObjectMeta: c.meta("pa1", "pa2", "pa3")}
	mode := func() *apisec.PeerAuthentication_MutualTLS {
		return &apisec.PeerAuthentication_MutualTLS{Mode: apisec.PeerAuthentication_MutualTLS_Mode(c.IntN(4))}
	}
	pa.Spec.Mtls = mode()
	if sel := c.selector(); sel != nil {
		pa.Spec.Selector = &typev1.WorkloadSelector{MatchLabels: sel}
		pa.Spec.PortLevelMtls = map[uint32]*apisec.PeerAuthentication_MutualTLS{80: mode(), 81: mode()}
	}
	return pa
}

func (c chance) entry() *networking.ServiceEntry {
	se := &networking.ServiceEntry{ObjectMeta: c.meta("se1", "se2")}
	if c.IntN(3) == 0 {
		se.Labels["istio.io/use-waypoint"] = "wp"
	}
	se.Spec.Hosts = []string{c.of("api.example.com", "*.example.com", "s1.n1.svc.cluster.local", "s2.n2.svc.cluster.local")}
	se.Spec.Addresses = []string{c.of("240.0.0.1", "10.96.0.1", "bad")}
	se.Spec.Ports = []*apinet.ServicePort{{Number: 80, Name: "http", Protocol: c.of("HTTP", "TCP")}}
	se.Spec.Resolution = apinet.ServiceEntry_Resolution(c.IntN(5))
	se.Spec.ExportTo = []string{c.of("*", ".", "n1", "~", "no name")}
	if c.IntN(2) == 0 {
		se.Spec.Addresses = nil
		for range 2 {
			se.Status.Addresses = append(se.Status.Addresses, &apinet.ServiceEntryAddress{Host: se.Spec.Hosts[0], Value: c.of("240.240.0.1", "240.240.0.2", "2001:2::1")})
		}
	}
	if c.IntN(2) == 0 {
		se.Spec.WorkloadSelector = &apinet.WorkloadSelector{Labels: c.labels()}
	} else {
		se.Spec.Endpoints = []*apinet.WorkloadEntry{{Address: c.of("192.0.2.1", "192.0.2.2", "far.example.com")}}
	}
	return se
}

func (c chance) destination() *networking.DestinationRule {
	dr := &networking.DestinationRule{ObjectMeta: c.meta("d1", "d2", "d3")}
	dr.Spec.Host = c.of("s1", "s2", "s1.n1.svc.cluster.local", "*.n2.svc.cluster.local", "*", "api.example.com", "none")
	dr.Spec.TrafficPolicy = &apinet.TrafficPolicy{LoadBalancer: &apinet.LoadBalancerSettings{
		LbPolicy: &apinet.LoadBalancerSettings_Simple{Simple: apinet.LoadBalancerSettings_SimpleLB(c.IntN(6))},
	}}
	switch c.IntN(6) {
	case 0:
		dr.Spec.ExportTo = []string{c.of(".", "*", "n1")}
	case 1:
		dr.Spec.WorkloadSelector = &typev1.WorkloadSelector{}
	case 2:
		dr.Spec.TrafficPolicy.PortLevelSettings = []*apinet.TrafficPolicy_PortTrafficPolicy{{Port: &apinet.PortSelector{Number: 80}}}
	}
	return dr
}

func (c chance) retryPolicy() *gatewayx.XBackendTrafficPolicy {
	p := &gatewayx.XBackendTrafficPolicy{ObjectMeta: c.meta("b1", "b2")}
	for range 1 + c.IntN(2) {
		p.Spec.TargetRefs = append(p.Spec.TargetRefs, gatewayx.LocalPolicyTargetReference{
			Kind: gateway.Kind(c.of("Service", "Service", "Pod")), Name: gateway.ObjectName(c.of("s1", "s2", "none")),
		})
	}
	if c.IntN(4) > 0 {
		percent := c.IntN(3)
		p.Spec.RetryConstraint = &gatewayx.RetryConstraint{Budget: &gatewayx.BudgetDetails{Percent: &percent}}
	}
	return p
}

func (c chance) object() any {
	switch c.IntN(22) {
	case 15, 16:
		return c.destination()
	case 17:
		return c.retryPolicy()
	case 18, 19:
		return c.guard()
	case 20:
		return c.requestAuthentication()
	case 21:
		return c.keySet()
	case 0:
		return c.service()
	case 1:
		return c.slice()
	case 2:
		return c.policy()
	case 3:
		return c.peer()
	case 4:
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.of("m1", "m2"), Labels: map[string]string{"topology.kubernetes.io/zone": c.of("z1", "z2")}}}
	case 5:
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.of("n1", "n2"), Labels: map[string]string{}}}
		if c.IntN(2) == 0 {
			ns.Labels["istio.io/use-waypoint"] = c.of("wp", "auto")
			ns.Labels["tier"] = c.of("x", "y")
		}
		if c.IntN(4) == 0 {
			ns.Labels["istio.io/use-waypoint-namespace"] = "n1"
		}
		return ns
	case 6:
		if c.IntN(3) == 0 {
			return c.class()
		}
		return c.gateway()
	case 7, 8, 9:
		return c.route()
	case 10, 11:
		return c.entry()
	}
	return c.pod()
}

func TestChangesLeadWhereTheWholeDoes(t *testing.T) {
	seed := rand.Uint64()
	c := chance{rand.New(rand.NewPCG(seed, 0))}
	for round := range 30 {
		set := objects.Set{Mesh: objects.MeshConfig{}.WithDefaults()}
		tr := translate.New()
		tr.Update(set, nil)
		var known []objects.Ref
		for step := range 60 {
			var changed []objects.Ref
			for range 1 + c.IntN(4) {
				ref, err := set.Put(c.object())
				if err != nil {
					t.Fatal(err)
				}
				changed, known = append(changed, ref), append(known, ref)
				if c.IntN(3) == 0 {
					gone := known[c.IntN(len(known))]
					set.Delete(gone)
					changed = append(changed, gone)
				}
			}
			if c.IntN(30) == 0 {
				set.Mesh.ClusterID = c.of("c1", "c2")
				set.Mesh.WaypointMissing = c.of("", "direct")
				set.Mesh.EntryVisibility.Default = objects.Visibility(c.IntN(3))
			}
			if c.IntN(20) == 0 {
				changed = nil
			}
			gotModel, gotConditions := tr.Update(set, changed)
			whole := translate.New()
			wantModel, wantConditions := whole.Update(set, nil)
			if d := cmp.Diff(whole.Details(), tr.Details()) + cmp.Diff(whole.AutoWaypoints(), tr.AutoWaypoints()); d != "" {
				t.Fatalf("seed %d round %d step %d, after %v (-whole +changes):\n%s", seed, round, step, changed, d)
			}
			if !reflect.DeepEqual(gotModel, wantModel) || !cmp.Equal(gotConditions, wantConditions, cmpopts.EquateEmpty()) {
				t.Fatalf("seed %d round %d step %d, after %v (-whole +changes):\n%s%s", seed, round, step, changed,
					cmp.Diff(wantModel, gotModel, compareAddr, comparePrefix), cmp.Diff(wantConditions, gotConditions))
			}
		}
	}
}

var (
	compareAddr   = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	comparePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
)

package scenario

import (
	"fmt"
	"math/rand/v2"
	"time"

	api "istio.io/api/security/v1beta1"
	typev1 "istio.io/api/type/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// author writes random objects of few names, so that they meet.
type author struct{ *rand.Rand }

func (a author) of(texts ...string) string { return texts[a.IntN(len(texts))] }

// some is mostly nothing, else one or two of the texts.
func (a author) some(texts ...string) []string {
	var out []string
	for a.IntN(4) == 0 {
		out = append(out, a.of(texts...))
	}
	return out
}

var someNamespaces = []string{"a", "b", "istio-system"}

func (a author) meta(names ...string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: a.of(someNamespaces...), Name: a.of(names...), CreationTimestamp: metav1.NewTime(time.Unix(int64(a.IntN(3)), 0))}
}

func (a author) selector() *typev1.WorkloadSelector {
	switch a.IntN(4) {
	case 0:
		return nil
	case 1:
		return &typev1.WorkloadSelector{MatchLabels: map[string]string{"app": a.of("x", "y"), "tier": a.of("1", "2")}}
	case 2:
		return &typev1.WorkloadSelector{MatchLabels: map[string]string{"tier": a.of("1", "2")}}
	}
	return &typev1.WorkloadSelector{MatchLabels: map[string]string{"app": a.of("x", "y")}}
}

// pod has an address of its own, whatever else changes of it.
func (a author) pod() *corev1.Pod {
	m := a.meta("p1", "p2", "p3")
	at := map[string]int{"a": 1, "b": 2, "istio-system": 3}[m.Namespace]
	m.Labels = map[string]string{"app": a.of("x", "y"), "tier": a.of("1", "2")}
	if a.IntN(4) > 0 {
		m.Annotations = map[string]string{"ambient.istio.io/redirection": "enabled"}
	}
	ready := corev1.ConditionTrue
	if a.IntN(5) == 0 {
		ready = corev1.ConditionFalse
	}
	return &corev1.Pod{
		ObjectMeta: m,
		Spec:       corev1.PodSpec{ServiceAccountName: a.of("s", "t"), NodeName: a.of("n1", "n2")},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.0.%d.%s", at, m.Name[1:])}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}},
		},
	}
}

func (a author) service() *corev1.Service {
	m := a.meta("s1", "s2")
	at := map[string]int{"a": 1, "b": 2, "istio-system": 3}[m.Namespace]
	s := &corev1.Service{ObjectMeta: m, Spec: corev1.ServiceSpec{
		ClusterIP: fmt.Sprintf("10.96.%d.%s", at, m.Name[1:]), Selector: map[string]string{"app": a.of("x", "y")},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(int32(8080 + a.IntN(2)))}},
	}}
	s.Spec.PublishNotReadyAddresses = a.IntN(4) == 0
	return s
}

func (a author) peer() *security.PeerAuthentication {
	mode := func() *api.PeerAuthentication_MutualTLS {
		return &api.PeerAuthentication_MutualTLS{Mode: api.PeerAuthentication_MutualTLS_Mode(a.IntN(4))}
	}
	pa := &security.PeerAuthentication{ObjectMeta: a.meta("pa1", "pa2", "pa3")}
	if pa.Spec.Selector = a.selector(); pa.Spec.Selector != nil || a.IntN(4) == 0 {
		pa.Spec.PortLevelMtls = map[uint32]*api.PeerAuthentication_MutualTLS{8080: mode(), 70000: mode()}
	}
	if a.IntN(4) > 0 {
		pa.Spec.Mtls = mode()
	}
	return pa
}

var (
	principalTexts = []string{"td/ns/a/sa/s", "td/ns/b/*", "old/ns/a/sa/s", "cluster.local/ns/a/sa/t", "far/ns/a/sa/s", "*/sa/t", "*", "td*", "ol*", "*ld/ns/b/sa/s", ""}
	domainTexts    = []string{"td", "old", "far", "o*", "*", "*d", "a/b"}
	accountTexts   = []string{"s", "a/t", "b/s", "a/*", ""}
	blockTexts     = []string{"10.0.1.0/30", "10.0.2.1", "10.0.0.0/8", "192.0.2.0/24", "0.0.0.0/0", "nonsense", "10.0.0.0/99"}
	portTexts      = []string{"8080", "8081", "http", "0"}
)

func (a author) source() *api.Source {
	return &api.Source{
		Principals: a.some(principalTexts...), NotPrincipals: a.some(principalTexts...),
		Namespaces: a.some("a", "b", "a*", "*b", "*", ""), NotNamespaces: a.some("a", "b", "*"),
		ServiceAccounts: a.some(accountTexts...), NotServiceAccounts: a.some(accountTexts...),
		IpBlocks: a.some(blockTexts...), NotIpBlocks: a.some(blockTexts...),
		TrustDomains: a.some(domainTexts...), NotTrustDomains: a.some(domainTexts...),
	}
}

func (a author) rule() *api.Rule {
	r := &api.Rule{}
	for range a.IntN(3) {
		s := a.source()
		if a.IntN(8) == 0 {
			s.RequestPrincipals = []string{"*"}
		}
		r.From = append(r.From, &api.Rule_From{Source: s})
	}
	for range a.IntN(3) {
		o := &api.Operation{Ports: a.some(portTexts...), NotPorts: a.some(portTexts...)}
		if a.IntN(5) == 0 {
			o.Methods = []string{"GET"}
		}
		r.To = append(r.To, &api.Rule_To{Operation: o})
	}
	for range a.IntN(2) {
		r.When = append(r.When, a.when())
	}
	return r
}

func (a author) when() *api.Condition {
	x := &api.Condition{Key: a.of("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain", "source.ip", "destination.ip", "destination.port", "request.headers[x]", "source.moon")}
	texts := map[string][]string{
		"source.principal": principalTexts, "source.namespace": {"a", "b"}, "source.serviceAccount": accountTexts,
		"source.trustDomain": domainTexts, "destination.port": portTexts,
	}[x.Key]
	if texts == nil {
		texts = blockTexts
	}
	x.Values, x.NotValues = a.some(texts...), a.some(texts...)
	return x
}

func (a author) policy() *security.AuthorizationPolicy {
	ap := &security.AuthorizationPolicy{ObjectMeta: a.meta("ap1", "ap2", "ap3")}
	ap.Spec.Selector = a.selector()
	ap.Spec.Action = []api.AuthorizationPolicy_Action{
		api.AuthorizationPolicy_ALLOW, api.AuthorizationPolicy_ALLOW, api.AuthorizationPolicy_DENY, api.AuthorizationPolicy_DENY, api.AuthorizationPolicy_AUDIT,
	}[a.IntN(5)]
	careful := a.IntN(3) > 0 // writes only what every proxy can tell
	for range a.IntN(3) {
		r := a.rule()
		for careful && len(troubles(ap, r)) > 0 {
			r = a.rule()
		}
		ap.Spec.Rules = append(ap.Spec.Rules, r)
	}
	switch a.IntN(12) {
	case 0:
		ap.Annotations = map[string]string{"istio.io/dry-run": "true"}
	case 1:
		ap.Spec.TargetRefs = []*typev1.PolicyTargetReference{{Kind: "Gateway", Group: "gateway.networking.k8s.io", Name: "none"}}
	case 2:
		ap.Spec.Rules = []*api.Rule{{}}
	}
	return ap
}

// change puts or deletes some objects.
func (a author) change(set *objects.Set) (changed []objects.Ref) {
	if a.IntN(30) == 0 { // by itself: whoever changes the whole mesh does not change policies in the same moment
		m := set.Mesh
		if m.TrustDomainAliases = []string{"old"}; len(set.Mesh.TrustDomainAliases) > 0 {
			m.TrustDomainAliases = nil
		}
		ref, err := set.Put(m)
		if err != nil {
			panic(err)
		}
		return []objects.Ref{ref}
	}
	for range 1 + a.IntN(3) {
		var o any
		switch n := a.IntN(12); {
		case n < 3:
			o = a.pod()
		case n == 3:
			o = a.service()
		case n < 7:
			o = a.peer()
		default:
			o = a.policy()
		}
		ref, err := set.Put(o)
		if err != nil {
			panic(err) // the author has a bug
		}
		// There are as many deletions as puts once all names are taken.
		if a.IntN(3) == 0 {
			set.Delete(ref)
		}
		changed = append(changed, ref)
	}
	return changed
}

package translate_test

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

func ptr[T any](v T) *T { return &v }

func (c chance) parents() []gateway.ParentReference {
	var out []gateway.ParentReference
	for range c.IntN(3) {
		p := gateway.ParentReference{
			Group: ptr(gateway.Group(c.of("", "", "", "core", "networking.istio.io", gateway.GroupName))),
			Kind:  ptr(gateway.Kind(c.of("Service", "Service", "Service", "ServiceEntry", "Gateway"))),
			Name:  gateway.ObjectName(c.of("s1", "s2", "wp")),
		}
		if c.IntN(4) == 0 {
			p.Namespace = ptr(gateway.Namespace(c.of("n1", "n2")))
		}
		if c.IntN(3) == 0 {
			p.Port = ptr(gateway.PortNumber(c.IntN(2) + 80))
		}
		if c.IntN(4) == 0 {
			p.SectionName = ptr(gateway.SectionName(c.of("http", "other")))
		}
		out = append(out, p)
	}
	return out
}

func (c chance) backend() gateway.BackendRef {
	b := gateway.BackendRef{BackendObjectReference: gateway.BackendObjectReference{
		Name: gateway.ObjectName(c.of("s1", "s2", "s3")), Port: ptr(gateway.PortNumber(80 + c.IntN(2))),
	}}
	if c.IntN(4) == 0 {
		b.Namespace = ptr(gateway.Namespace(c.of("n1", "n2")))
	}
	return b
}

func (c chance) route() any {
	meta := c.meta("r1", "r2", "r3")
	meta.Generation = int64(c.IntN(3))
	spec := gateway.CommonRouteSpec{ParentRefs: c.parents()}
	switch c.IntN(5) {
	case 0:
		return &gateway.GRPCRoute{ObjectMeta: meta, Spec: gateway.GRPCRouteSpec{CommonRouteSpec: spec, Rules: []gateway.GRPCRouteRule{
			{BackendRefs: []gateway.GRPCBackendRef{{BackendRef: c.backend()}}},
		}[c.IntN(2):]}}
	case 1:
		return &gateway.TCPRoute{ObjectMeta: meta, Spec: gateway.TCPRouteSpec{CommonRouteSpec: spec, Rules: []gateway.TCPRouteRule{{BackendRefs: []gateway.BackendRef{c.backend()}}}}}
	case 2:
		return &gateway.TLSRoute{ObjectMeta: meta, Spec: gateway.TLSRouteSpec{CommonRouteSpec: spec, Rules: []gateway.TLSRouteRule{{BackendRefs: []gateway.BackendRef{c.backend()}}}}}
	}
	path := func() []gateway.HTTPRouteMatch {
		return []gateway.HTTPRouteMatch{{Path: &gateway.HTTPPathMatch{Type: ptr(gateway.PathMatchType(c.of("Exact", "PathPrefix", "RegularExpression", "Other"))), Value: ptr(c.of("/a", "/b/"))}}}
	}
	return &gateway.HTTPRoute{ObjectMeta: meta, Spec: gateway.HTTPRouteSpec{CommonRouteSpec: spec, Rules: []gateway.HTTPRouteRule{
		{Matches: path(), BackendRefs: []gateway.HTTPBackendRef{{BackendRef: c.backend()}, {BackendRef: c.backend()}}},
		{Matches: path(), Filters: []gateway.HTTPRouteFilter{{Type: gateway.HTTPRouteFilterType(c.of("ExtensionRef", "RequestMirror")), RequestMirror: &gateway.HTTPRequestMirrorFilter{BackendRef: c.backend().BackendObjectReference}}}},
	}[c.IntN(2):]}}
}

func (c chance) gateway() *gateway.Gateway {
	g := &gateway.Gateway{ObjectMeta: c.meta("s1", "wp", "wp", "auto-waypoint")}
	g.Spec.GatewayClassName = gateway.ObjectName(c.of("istio-waypoint", "istio-waypoint", "other", "mine"))
	if c.IntN(2) == 0 {
		g.Labels["istio.io/waypoint-for"] = c.of("service", "workload", "all", "none")
	}
	l := gateway.Listener{Name: "mesh", Port: 15008, Protocol: gateway.ProtocolType(c.of("HBONE", "HBONE", "HTTP"))}
	if c.IntN(2) == 0 {
		l.AllowedRoutes = &gateway.AllowedRoutes{Namespaces: &gateway.RouteNamespaces{
			From: ptr(gateway.FromNamespaces(c.of("All", "Same", "Selector"))), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "x"}},
		}}
	}
	g.Spec.Listeners = []gateway.Listener{l}
	if c.IntN(2) == 0 {
		g.Status.Addresses = []gateway.GatewayStatusAddress{{Value: "10.96.0.1"}}
	}
	return g
}

func (c chance) class() *gateway.GatewayClass {
	class := &gateway.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: c.of("istio-waypoint", "mine"), Labels: map[string]string{"istio.io/waypoint-for": c.of("", "all")}}}
	class.Spec.ControllerName = gateway.GatewayController(c.of("istio.io/mesh-controller", "somebody.example/else"))
	return class
}

// crowd makes objects that meet in few places: four kinds of routes, with and
// without a rule that works, at two ports of two services, which come and go
// with their waypoint's Gateway.
func (c chance) crowd() any {
	home := metav1.ObjectMeta{Namespace: c.of("n1", "n2"), Name: c.of("r1", "r2")}
	switch c.IntN(8) {
	case 0:
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n1", Name: c.of("s1", "s2")}}
		s.Spec = corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: c.of("x", "tcp"), Port: 80}, {Name: "y", Port: 81}}[c.IntN(2):]}
		if c.IntN(2) == 0 {
			s.Labels = map[string]string{"istio.io/use-waypoint": "s2"}
		}
		return s
	case 1:
		g := c.gateway()
		g.Namespace = "n1"
		return g
	}
	p := gateway.ParentReference{Group: ptr(gateway.Group("")), Kind: ptr(gateway.Kind("Service")), Namespace: ptr(gateway.Namespace("n1")), Name: gateway.ObjectName(c.of("s1", "s2"))}
	switch c.IntN(5) {
	case 0, 1:
		p.Port = ptr(gateway.PortNumber(80 + c.IntN(2)))
	case 2:
		p.Group, p.Kind = ptr(gateway.Group(gateway.GroupName)), ptr(gateway.Kind("Gateway"))
	}
	spec := gateway.CommonRouteSpec{ParentRefs: []gateway.ParentReference{p}}
	some := c.IntN(4) / 3 // sometimes there is no rule
	switch c.IntN(4) {
	case 0:
		return &gateway.GRPCRoute{ObjectMeta: home, Spec: gateway.GRPCRouteSpec{CommonRouteSpec: spec, Rules: []gateway.GRPCRouteRule{{}}[some:]}}
	case 1:
		return &gateway.HTTPRoute{ObjectMeta: home, Spec: gateway.HTTPRouteSpec{CommonRouteSpec: spec, Rules: []gateway.HTTPRouteRule{{}}[some:]}}
	case 2:
		return &gateway.TLSRoute{ObjectMeta: home, Spec: gateway.TLSRouteSpec{CommonRouteSpec: spec, Rules: []gateway.TLSRouteRule{{}}[some:]}}
	}
	return &gateway.TCPRoute{ObjectMeta: home, Spec: gateway.TCPRouteSpec{CommonRouteSpec: spec, Rules: []gateway.TCPRouteRule{{}}[some:]}}
}

func TestRoutesThatMeetLeadWhereTheWholeDoes(t *testing.T) {
	seed := rand.Uint64()
	c := chance{rand.New(rand.NewPCG(seed, 0))}
	conflicts := 0
	for round := range 10 {
		set := objects.Set{Mesh: objects.MeshConfig{}.WithDefaults()}
		tr := translate.New()
		tr.Update(set, nil)
		var known []objects.Ref
		for step := range 80 {
			ref, err := set.Put(c.crowd())
			if err != nil {
				t.Fatal(err)
			}
			changed := []objects.Ref{ref}
			known = append(known, ref)
			if c.IntN(2) == 0 {
				gone := known[c.IntN(len(known))]
				set.Delete(gone)
				changed = append(changed, gone)
			}
			model, conditions := tr.Update(set, changed)
			wholeModel, wholeConditions := translate.Translate(set)
			if !reflect.DeepEqual(model, wholeModel) || !cmp.Equal(conditions, wholeConditions, cmpopts.EquateEmpty()) {
				t.Fatalf("seed %d round %d step %d, after %v (-whole +changes):\n%s%s", seed, round, step, changed,
					cmp.Diff(wholeModel, model, compareAddr, comparePrefix), cmp.Diff(wholeConditions, conditions))
			}
			for _, w := range conditions {
				if w.Reason == translate.ReasonConflicted {
					conflicts++
				}
			}
		}
	}
	if conflicts < 100 {
		t.Errorf("only %d conflicts: too few to prove anything", conflicts)
	}
}

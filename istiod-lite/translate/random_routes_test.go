package translate_test

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
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

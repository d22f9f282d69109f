package translate_test

import (
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
	g := &gateway.Gateway{ObjectMeta: c.meta("s1", "s2", "wp")}
	g.Spec.GatewayClassName = gateway.ObjectName(c.of("istio-waypoint", "other"))
	return g
}

package translate

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// backends reads the backends of a rule. Without any it answers 500, as
// gateways do; it never means the service itself.
func backends[B any](c *ruleConversion, in []B, read func(*B) (gateway.BackendRef, []gateway.HTTPRouteFilter), out *mesh.RouteRule) *wrong {
	for i := range in {
		ref, filters := read(&in[i])
		b := c.backend(ref.BackendObjectReference, ref.Weight)
		if w := c.backendFilters(filters, &b.Filters); w != nil {
			return w
		}
		out.Backends = append(out.Backends, b)
	}
	return nil
}

func httpBackend(b *gateway.HTTPBackendRef) (gateway.BackendRef, []gateway.HTTPRouteFilter) {
	return b.BackendRef, b.Filters
}

func grpcBackend(b *gateway.GRPCBackendRef) (gateway.BackendRef, []gateway.HTTPRouteFilter) {
	return b.BackendRef, grpcFilters(b.Filters)
}

func plainBackend(b *gateway.BackendRef) (gateway.BackendRef, []gateway.HTTPRouteFilter) {
	return *b, nil
}

// backendFilters reads the filters of one backend: edits of headers only.
func (c *ruleConversion) backendFilters(in []gateway.HTTPRouteFilter, out *mesh.Filters) *wrong {
	for _, f := range in {
		if f.Type != gateway.HTTPRouteFilterRequestHeaderModifier && f.Type != gateway.HTTPRouteFilterResponseHeaderModifier {
			return unsupported("filter %s is not supported on a backend", f.Type)
		}
	}
	return c.filters(in, nil, out)
}

// backend resolves a reference. No ReferenceGrant is asked for: it is not
// needed for routes of services (GEP-1294).
func (c *ruleConversion) backend(ref gateway.BackendObjectReference, weight *int32) mesh.Backend {
	b := mesh.Backend{Weight: 1}
	if weight != nil {
		b.Weight = uint32(max(*weight, 0))
	}
	group, kind := string(valueOf(ref.Group)), firstOf(string(valueOf(ref.Kind)), kindService)
	k := objects.Key{Namespace: firstOf(string(valueOf(ref.Namespace)), c.namespace), Name: string(ref.Name)}
	if group != "" && group != groupCore || kind != kindService {
		return c.lost(b, ReasonInvalidKind, "a backend is a Service, not a %s of group %q", kind, group)
	}
	c.services = append(c.services, k)
	b.Service = serviceKey(c.mesh, k)
	s := c.service(k)
	switch {
	case s == nil:
		return c.lost(b, ReasonBackendNotFound, "Service %s is not there", k)
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return c.lost(b, ReasonBackendNotFound, "Service %s is of type ExternalName and has no endpoints", k)
	case ref.Port == nil:
		return c.lost(b, ReasonBackendNotFound, "no port of Service %s is named", k)
	}
	for _, p := range portsOf(s, corev1.ProtocolTCP) {
		if p.Port == *ref.Port {
			b.Port = uint16(p.Port)
			if !carries(c.kind, p) {
				return c.lost(b, ReasonUnsupportedProtocol, "port %d of Service %s is declared %s, which a route of kind %s does not speak", p.Port, k, *p.AppProtocol, c.kind)
			}
			return b
		}
	}
	return c.lost(b, ReasonBackendNotFound, "Service %s has no TCP port %d", k, *ref.Port)
}

func (c *ruleConversion) lost(b mesh.Backend, reason, format string, args ...any) mesh.Backend {
	b.Invalid = fmt.Sprintf(format, args...)
	c.unresolved = append(c.unresolved, unresolved{rule: c.rule, reason: reason, text: b.Invalid})
	return b
}

// carries reports whether a route's traffic can be spoken to a backend's port
// (GEP-1911). Only appProtocol counts, not the port's name. TLS is left to the
// settings that start it.
func carries(kind mesh.RouteKind, p corev1.ServicePort) bool {
	if p.AppProtocol == nil {
		return true
	}
	switch *p.AppProtocol {
	case "kubernetes.io/ws":
		return kind == mesh.RouteHTTP || kind == mesh.RouteTCP
	case "kubernetes.io/wss":
		return kind == mesh.RouteTLS || kind == mesh.RouteTCP
	}
	switch appProtocol(p) {
	case mesh.AppHTTP11, mesh.AppHTTP2, mesh.AppGRPC:
		return kind != mesh.RouteTLS
	case mesh.AppTCP:
		return kind == mesh.RouteTLS || kind == mesh.RouteTCP
	case mesh.AppTLS, mesh.AppUnknown:
	}
	return true
}

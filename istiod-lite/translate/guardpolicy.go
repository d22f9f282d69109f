package translate

import (
	"fmt"
	"strings"

	security "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// guardPolicy makes the policy of waypoints of an AuthorizationPolicy with
// targets. What of it cannot be evaluated closes, as at L4.
func guardPolicy(m objects.MeshConfig, ap *security.AuthorizationPolicy, aims []aim) (*mesh.Policy, Condition) {
	c := conversion{mesh: m, namespace: ap.Namespace, action: actionOf(ap), waypoint: true}
	p := c.policy(ap, mesh.ScopeTargets)
	p.Targets = targetsOf(aims)
	invalid := ReasonPartiallyInvalid
	if c.action == mesh.ActionCustom {
		name := ap.Spec.GetProvider().GetName()
		var problem string
		if p.Provider, problem = provider(m, ap.Namespace, name); problem != "" {
			invalid = ReasonInvalid
			c.note("Provider %q %s: what this policy matches is denied.", name, problem)
		}
	}
	if len(ap.Spec.GetSelector().GetMatchLabels()) > 0 {
		c.note("The selector has no effect beside targetRefs.")
	}
	return p, guardCondition(objects.Ref{Kind: objects.KindAuthorizationPolicy, Key: objects.Key{Namespace: ap.Namespace, Name: ap.Name}}, ap.Generation, aims, invalid, c.notes)
}

// provider finds an external authorizer in the mesh's settings, and says why
// there is none that can be asked.
func provider(m objects.MeshConfig, namespace, name string) (*mesh.Provider, string) {
	for _, p := range m.Providers {
		if p.Name != name {
			continue
		}
		if p.Problem != "" {
			return nil, "cannot be used, since its " + p.Problem
		}
		out := p.Provider
		out.Service, out.Host = locate(m, p.At)
		return &out, ""
	}
	return nil, fmt.Sprintf("is not among the extensionProviders of the mesh's settings")
}

// locate reads "[namespace/]hostname". A name of the cluster's domain is a
// Service's, whatever namespace stands before it.
func locate(m objects.MeshConfig, at string) (mesh.ServiceKey, string) {
	namespace, host, ok := strings.Cut(at, "/")
	if !ok {
		namespace, host = "", at
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	name, inCluster := strings.CutSuffix(host, ".svc."+m.ClusterDomain)
	if service, ns, two := strings.Cut(name, "."); inCluster && two && service != "" && !strings.Contains(ns, ".") {
		return mesh.ServiceKey{Namespace: ns, Hostname: host}, ""
	}
	if namespace != "" {
		return mesh.ServiceKey{Namespace: namespace, Hostname: host}, ""
	}
	return mesh.ServiceKey{}, host
}

package translate

import (
	"maps"
	"slices"

	api "istio.io/api/security/v1beta1"
	typev1 "istio.io/api/type/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// screenPrefix begins the names of screens. A screen is the policy that lets
// only a service's waypoint reach the service's pods: there is one where an L7
// policy targets a service, because whoever dials a pod would pass by it.
const screenPrefix = "waypoint_only_"

// screening is the Translator's part for screens.
type screening struct {
	// aimedAt are the policies and authentications that target a service.
	aimedAt sets[objects.Key, objects.Ref]
	up      map[mesh.ServiceKey]mesh.PolicyKey
}

func newScreening() screening {
	return screening{aimedAt: sets[objects.Key, objects.Ref]{}, up: map[mesh.ServiceKey]mesh.PolicyKey{}}
}

// seeAims indexes an object by the services that it targets.
func (t *Translator) seeAims(ref objects.Ref, refs []*typev1.PolicyTargetReference, index func(objects.Key, objects.Ref), d *dirty) {
	for _, r := range refs {
		inside := r.GetNamespace() == "" || r.GetNamespace() == ref.Key.Namespace
		if r.GetKind() == kindService && (r.GetGroup() == "" || r.GetGroup() == groupCore) && inside {
			k := objects.Key{Namespace: ref.Key.Namespace, Name: r.GetName()}
			index(k, ref)
			d.services[k], d.screens[k] = true, true
		}
	}
}

// guards are the references of a policy that denies something.
func guards(ap *security.AuthorizationPolicy) []*typev1.PolicyTargetReference {
	if ap == nil || ap.Spec.GetAction() == api.AuthorizationPolicy_AUDIT {
		return nil
	}
	if dry, _ := isDryRun(ap.Annotations); dry {
		return nil
	}
	return targetRefs(ap.Spec.GetTargetRef(), ap.Spec.GetTargetRefs())
}

func authenticates(ra *security.RequestAuthentication) []*typev1.PolicyTargetReference {
	if ra == nil {
		return nil
	}
	return targetRefs(ra.Spec.GetTargetRef(), ra.Spec.GetTargetRefs())
}

// seeScreened marks the services that select a pod: a pod has its own numbers
// for their named ports.
func (t *Translator) seeScreened(pod *corev1.Pod, d *dirty) {
	for _, k := range t.serviceSelectors.find(pod.Namespace, pod.Labels) {
		if len(t.screening.aimedAt[k]) > 0 {
			d.screens[k] = true
		}
	}
}

// redoScreen raises a service's screen, or takes it away.
func (t *Translator) redoScreen(k objects.Key, d *dirty) {
	key := serviceKey(t.seen.Mesh, k)
	now := t.screenOf(k)
	_, was := t.screening.up[key]
	switch {
	case now != nil:
		t.policies.put(now.Key, now)
		t.screening.up[key] = now.Key
	case was:
		t.policies.del(t.screening.up[key])
		delete(t.screening.up, key)
	}
	if was != (now != nil) {
		t.markPodsOf(k, d)
	}
}

// markPodsOf marks the pods behind a service.
func (t *Translator) markPodsOf(k objects.Key, d *dirty) {
	t.markSelected(k.Namespace, podSelector(t.seen.Services[k]), d)
	for s := range t.slicesOf[k] {
		for _, pod := range slicePods(t.seen.EndpointSlices[s]) {
			d.pods[pod] = true
		}
	}
}

// screenOf makes a service's screen; nil if it needs none. One that names no
// waypoint has none: then nothing enforces the policy, and its owner is told.
func (t *Translator) screenOf(k objects.Key) *mesh.Policy {
	b, s := t.Waypoint(k), t.seen.Services[k]
	if s == nil || b.Address.IsZero() || len(t.screening.aimedAt[k]) == 0 {
		return nil
	}
	ports := t.targetPorts(k, s)
	if len(ports) == 0 {
		return nil
	}
	id := spiffe.ID{TrustDomain: t.seen.Mesh.TrustDomain, Namespace: b.Gateway.Namespace, ServiceAccount: b.Gateway.Name}
	waypoint := mesh.StringMatch{Value: id.TrustDomain + "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount}
	return &mesh.Policy{
		Key: mesh.PolicyKey{Namespace: k.Namespace, Name: screenPrefix + k.Name}, Scope: mesh.ScopeSelector, Action: mesh.ActionDeny,
		Rules: []mesh.Rule{{Clauses: []mesh.Clause{
			{Matches: []mesh.Match{{NotPrincipals: []mesh.StringMatch{waypoint}}}},
			{Matches: []mesh.Match{{DestinationPorts: ports}}},
		}}},
	}
}

// targetPorts are the ports of the pods behind a service, ascending. Where pods
// give a name different numbers, all of them count for each pod.
func (t *Translator) targetPorts(k objects.Key, s *corev1.Service) []uint16 {
	found := map[uint16]bool{}
	add := func(ports []mesh.Port) {
		for _, p := range ports {
			found[p.Target] = true
		}
	}
	if selector := podSelector(s); len(selector) > 0 {
		for p := range t.podsIn[k.Namespace] {
			if pod := t.seen.Pods[p]; matches(selector, pod.Labels) {
				add(podPorts(s, pod))
			}
		}
	} else {
		for slice := range t.slicesOf[k] {
			add(slicePorts(s, t.seen.EndpointSlices[slice]))
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// screensOf are the screens of a pod's services.
func (t *Translator) screensOf(services map[mesh.ServiceKey][]mesh.Port) []mesh.PolicyKey {
	var out []mesh.PolicyKey
	if len(t.screening.up) > 0 {
		for k := range services {
			if p, up := t.screening.up[k]; up {
				out = append(out, p)
			}
		}
	}
	return out
}

package translate

import (
	"fmt"
	"slices"
	"strings"

	typev1 "istio.io/api/type/v1beta1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// aim is one target of a policy, looked up.
type aim struct {
	// target is zero if there is no such thing.
	target mesh.Target
	// reason is ReasonAccepted if a waypoint enforces the policy there.
	reason string
	// message is a sentence.
	message string
}

// targetRefs are an object's references in either form.
func targetRefs(one *typev1.PolicyTargetReference, many []*typev1.PolicyTargetReference) []*typev1.PolicyTargetReference {
	if one != nil {
		return append([]*typev1.PolicyTargetReference{one}, many...)
	}
	return many
}

// aims looks up the targets of an object in a namespace.
func (t *Translator) aims(namespace string, refs []*typev1.PolicyTargetReference) []aim {
	out := make([]aim, 0, len(refs))
	for _, r := range refs {
		if r.GetKind() == kindForeign && r.GetGroup() == groupIstio && r.GetNamespace() == "" {
			out = append(out, t.aimsAtEntry(objects.Key{Namespace: namespace, Name: r.GetName()})...)
		} else {
			out = append(out, t.aim(namespace, r))
		}
	}
	return out
}

func (t *Translator) aim(namespace string, r *typev1.PolicyTargetReference) aim {
	name := fmt.Sprintf("%s %s", r.GetKind(), r.GetName())
	k := objects.Key{Namespace: namespace, Name: r.GetName()}
	switch {
	case r.GetNamespace() != "" && r.GetNamespace() != namespace:
		return aim{reason: ReasonInvalid, message: name + " is in another namespace, where this policy has no say."}
	case r.GetKind() == kindService && (r.GetGroup() == "" || r.GetGroup() == groupCore):
		return t.aimAtService(k, name)
	case r.GetKind() == kindGateway && r.GetGroup() == groupGateway:
		return t.aimAtGateway(k, name)
	case r.GetKind() == "GatewayClass" && r.GetGroup() == groupGateway:
		return t.aimAtClass(k, name)
	}
	return aim{reason: ReasonInvalid, message: fmt.Sprintf("A target of kind %s in group %q has no effect here.", r.GetKind(), r.GetGroup())}
}

func (t *Translator) aimAtService(k objects.Key, name string) aim {
	s := t.seen.Services[k]
	switch {
	case s == nil:
		return aim{reason: ReasonTargetNotFound, message: name + " is not there."}
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return aim{reason: ReasonInvalid, message: name + " is of type ExternalName: traffic to it never comes to a waypoint."}
	case len(clusterIPs(s)) == 0:
		return aim{reason: ReasonInvalid, message: name + " is headless: traffic to it goes straight to its pods."}
	}
	return t.bound(serviceKey(t.seen.Mesh, k), name)
}

// aimsAtEntry are the hosts of a ServiceEntry.
func (t *Translator) aimsAtEntry(k objects.Key) []aim {
	name := kindForeign + " " + k.Name
	if t.seen.ServiceEntries[k] == nil {
		return []aim{{reason: ReasonTargetNotFound, message: name + " is not there."}}
	}
	var out []aim
	for _, s := range t.entries.services[k.Namespace] {
		if t.entries.owner[s] == k {
			out = append(out, t.bound(s, name+"'s "+s.Hostname))
		}
	}
	if len(out) == 0 {
		return []aim{{reason: ReasonInvalid, message: name + " has no host that counts."}}
	}
	return out
}

// bound tells whether a waypoint stands in front of a service.
func (t *Translator) bound(k mesh.ServiceKey, name string) aim {
	a := aim{target: mesh.Target{Service: k}, reason: ReasonAncestorNotBound}
	out := t.services.get(a.target.Service)
	switch {
	case out == nil || out.Waypoint.IsZero():
		a.message = name + " names no waypoint, nor does its namespace: nothing enforces this there."
	case !t.standing(out.Waypoint).ready:
		a.message = fmt.Sprintf("Waypoint %s of %s is not ready: connections fail until it is.", out.Waypoint, name)
	default:
		a.reason, a.message = ReasonAccepted, fmt.Sprintf("Waypoint %s enforces this for %s.", out.Waypoint, name)
	}
	return a
}

func (t *Translator) aimAtGateway(k objects.Key, name string) aim {
	g := t.seen.Gateways[k]
	switch {
	case g == nil:
		return aim{reason: ReasonTargetNotFound, message: name + " is not there."}
	case !IsWaypoint(g, t.classOf(g)):
		return aim{reason: ReasonInvalid, message: fmt.Sprintf("%s is of class %s: it is no waypoint.", name, g.Spec.GatewayClassName)}
	}
	a := aim{target: mesh.Target{Gateway: serviceKey(t.seen.Mesh, k)}, reason: ReasonAccepted}
	if !t.waypoints.state[k].ready {
		a.reason, a.message = ReasonAncestorNotBound, fmt.Sprintf("Waypoint %s is not ready.", a.target.Gateway)
	} else {
		a.message = fmt.Sprintf("Waypoint %s enforces this for everything that it serves.", a.target.Gateway)
	}
	return a
}

func (t *Translator) aimAtClass(k objects.Key, name string) aim {
	switch {
	case k.Namespace != t.seen.Mesh.RootNamespace:
		return aim{reason: ReasonInvalid, message: fmt.Sprintf("%s is a target for policies in namespace %s only.", name, t.seen.Mesh.RootNamespace)}
	case k.Name != WaypointClass:
		return aim{reason: ReasonInvalid, message: fmt.Sprintf("%s is not the class of waypoints, which is %s.", name, WaypointClass)}
	}
	return aim{target: mesh.Target{Class: true}, reason: ReasonAccepted, message: "Every waypoint enforces this."}
}

// targetsOf are the targets that are there, each once.
func targetsOf(aims []aim) []mesh.Target {
	var out []mesh.Target
	for _, a := range aims {
		if a.target != (mesh.Target{}) && !slices.Contains(out, a.target) {
			out = append(out, a.target)
		}
	}
	return out
}

// guardCondition tells an object's owner where it is enforced, and what of it
// is not as it was written. Several targets share one condition, as upstream.
func guardCondition(ref objects.Ref, generation int64, aims []aim, invalid string, notes []string) Condition {
	c := Condition{Object: ref, Generation: generation, Type: TypeWaypointAccepted, Reason: ReasonAccepted}
	var messages []string
	for i, a := range aims {
		if messages = append(messages, a.message); i == 0 {
			c.Reason = a.reason
		} else if a.reason != c.Reason {
			c.Reason = ReasonPartiallyInvalid
			if !slices.ContainsFunc(aims, func(a aim) bool { return a.reason == ReasonAccepted }) {
				c.Reason = ReasonInvalid
			}
		}
	}
	if c.Reason == ReasonAccepted && len(notes) > 0 {
		c.Reason = invalid
	}
	c.Status = c.Reason == ReasonAccepted
	c.Message = strings.Join(append(messages, notes...), " ")
	return c
}

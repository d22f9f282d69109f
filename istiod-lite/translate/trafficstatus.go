package translate

import (
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// destinationCondition says where a rule is enforced, where it is not, and
// which of its fields have no effect; nil if it is gone.
func (t *Translator) destinationCondition(ref objects.Ref, services []mesh.ServiceKey) *Condition {
	r := t.traffic.rules[ref.Key]
	if r == nil {
		return nil
	}
	c := &Condition{Object: ref, Generation: r.generation, Type: TypeRuleAccepted}
	var sentences []string
	if !r.barred {
		c.Reason, sentences = t.reach(r, services)
	}
	if len(r.notes) > 0 && (c.Reason == "" || c.Reason == ReasonAccepted) {
		c.Reason = ReasonUnsupportedValue
	}
	c.Status = c.Reason == ReasonAccepted
	c.Message = strings.Join(append(sentences, r.notes...), " ")
	return c
}

// reach says which services a rule counts for.
func (t *Translator) reach(r *destination, services []mesh.ServiceKey) (reason string, sentences []string) {
	if len(services) == 0 {
		return ReasonTargetNotFound, []string{fmt.Sprintf("No service with host %q takes rules from namespace %s: waypoints look in their own, in the service's and in the root namespace.", r.host, r.key.Namespace)}
	}
	var served, bare, taken []string
	for _, k := range services {
		switch s := t.traffic.speaking[k]; {
		case s.rules[0] != r.key:
			taken = append(taken, fmt.Sprintf("%s (%s)", k.Hostname, s.rules[0]))
		case !s.waypoint:
			bare = append(bare, k.Hostname)
		default:
			served = append(served, k.Hostname)
		}
	}
	reason = ReasonAccepted
	switch {
	case len(served) > 0:
		sentences = append(sentences, "Enforced by the waypoint of "+few(served)+".")
	case len(bare) > 0:
		reason = ReasonNoWaypoint
	default:
		reason = ReasonConflicted
	}
	if len(bare) > 0 {
		sentences = append(sentences, "Without a waypoint nothing enforces it for "+few(bare)+".")
	}
	if len(taken) > 0 {
		sentences = append(sentences, "Another rule comes first for "+few(taken)+".")
	}
	return reason, sentences
}

// few names things, the first three of them.
func few(names []string) string {
	switch n := len(names); {
	case n == 1:
		return names[0]
	case n <= 3:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	default:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), n-3)
	}
}

package translate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// The defaults of a retry budget (GEP-3388).
const (
	budgetPercent     = 20
	budgetInterval    = 10 * time.Second
	budgetMinCount    = 10
	budgetMinInterval = time.Second
)

// retryPolicy is an XBackendTrafficPolicy, converted. Of such a policy only
// the budget of retries has a meaning here.
type retryPolicy struct {
	key        objects.Key
	created    int64
	generation int64
	targets    []retryTarget
	budget     *mesh.RetryBudget // nil if it has none
	notes      []string
}

// retryTarget is one of its targets; the service is zero if it is none.
type retryTarget struct {
	parent  Parent
	service mesh.ServiceKey
}

func convertRetryPolicy(m objects.MeshConfig, in *gatewayx.XBackendTrafficPolicy) *retryPolicy {
	p := &retryPolicy{
		key:     objects.Key{Namespace: in.Namespace, Name: in.Name},
		created: in.CreationTimestamp.Unix(), generation: in.Generation,
	}
	for _, ref := range in.Spec.TargetRefs {
		target := retryTarget{parent: Parent{Group: string(ref.Group), Kind: string(ref.Kind), Name: string(ref.Name)}}
		if (ref.Group == "" || ref.Group == "core") && ref.Kind == "Service" {
			target.service = serviceKey(m, objects.Key{Namespace: in.Namespace, Name: string(ref.Name)})
		}
		p.targets = append(p.targets, target)
	}
	if in.Spec.SessionPersistence != nil {
		p.notes = append(p.notes, "spec.sessionPersistence has no effect: set it in the rules of routes.")
	}
	if c := in.Spec.RetryConstraint; c != nil {
		p.budget = &mesh.RetryBudget{Percent: budgetPercent, Interval: budgetInterval, MinCount: budgetMinCount, MinInterval: budgetMinInterval}
		if b := c.Budget; b != nil {
			set(&p.budget.Percent, b.Percent)
			p.duration(&p.budget.Interval, b.Interval, "spec.retryConstraint.budget.interval")
		}
		if r := c.MinRetryRate; r != nil {
			set(&p.budget.MinCount, r.Count)
			p.duration(&p.budget.MinInterval, r.Interval, "spec.retryConstraint.minRetryRate.interval")
		}
	}
	return p
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// duration reads one, or keeps the default and says so.
func (p *retryPolicy) duration(to *time.Duration, from *gateway.Duration, at string) {
	if from == nil {
		return
	}
	d, err := time.ParseDuration(string(*from))
	if err != nil || d <= 0 {
		p.notes = append(p.notes, fmt.Sprintf("%s %q is no duration: %s is used.", at, *from, *to))
		return
	}
	*to = d
}

func (p *retryPolicy) speaksOf(k mesh.ServiceKey) bool {
	return p != nil && p.budget != nil && slices.ContainsFunc(p.targets, func(t retryTarget) bool { return t.service == k })
}

// redoRetryPolicy converts a policy again, and marks its targets.
func (t *Translator) redoRetryPolicy(k objects.Key, d *dirtyTraffic) {
	was := t.traffic.budgets[k]
	delete(t.traffic.budgets, k)
	t.traffic.budgetsIn.del(k.Namespace, k)
	var now *retryPolicy
	if in := t.seen.XBackendTrafficPolicies[k]; in != nil {
		now = convertRetryPolicy(t.seen.Mesh, in)
		t.traffic.budgets[k] = now
		t.traffic.budgetsIn.put(k.Namespace, k)
	}
	for _, p := range []*retryPolicy{was, now} {
		if p == nil {
			continue
		}
		for _, target := range p.targets {
			d.services[target.service] = true
		}
	}
	d.told[objects.Ref{Kind: objects.KindXBackendTrafficPolicy, Key: k}] = true
}

// retryPoliciesFor are the policies that target a service, the oldest first:
// only that one counts.
func (t *Translator) retryPoliciesFor(s *mesh.Service) []objects.Key {
	var found []objects.Key
	for k := range t.traffic.budgetsIn[s.Namespace] {
		if t.traffic.budgets[k].speaksOf(s.Key()) {
			found = append(found, k)
		}
	}
	slices.SortFunc(found, func(a, b objects.Key) int {
		return cmp.Or(cmp.Compare(t.traffic.budgets[a].created, t.traffic.budgets[b].created), cmp.Compare(a.Name, b.Name))
	})
	return found
}

// retryConditions are one for each target.
func (t *Translator) retryConditions(ref objects.Ref) []Condition {
	p := t.traffic.budgets[ref.Key]
	if p == nil {
		return nil
	}
	var out []Condition
	for _, target := range p.targets {
		c := Condition{Object: ref, Parent: target.parent, Generation: p.generation, Type: TypeAccepted}
		c.Reason, c.Message = t.retryReach(p, target)
		if c.Reason == ReasonAccepted && len(p.notes) > 0 {
			c.Reason = ReasonInvalid
		}
		c.Message = strings.Join(append([]string{c.Message}, p.notes...), " ")
		c.Status = c.Reason == ReasonAccepted
		out = append(out, c)
	}
	return out
}

func (t *Translator) retryReach(p *retryPolicy, target retryTarget) (reason, message string) {
	now := t.traffic.speaking[target.service]
	switch {
	case target.service == mesh.ServiceKey{}:
		return ReasonInvalid, "Only a Service can be a target: the policy has no effect on this one."
	case p.budget == nil:
		return ReasonInvalid, "Without a retryConstraint the policy has no effect."
	case t.services.get(target.service) == nil:
		return ReasonTargetNotFound, "There is no such Service."
	case len(now.budgets) > 0 && now.budgets[0] != p.key:
		return ReasonConflicted, fmt.Sprintf("XBackendTrafficPolicy %s is older, and counts for this Service.", now.budgets[0])
	case !now.waypoint:
		return ReasonNoWaypoint, "The Service has no waypoint, so nothing enforces the policy."
	}
	return ReasonAccepted, "Enforced by the waypoint of the Service."
}

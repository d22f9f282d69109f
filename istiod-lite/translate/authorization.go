package translate

import (
	"fmt"
	"strconv"
	"strings"

	api "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

const (
	annotationDryRun = "istio.io/dry-run"
	// annotationUnseen, or the mesh's setting unseenDeny, with "ignore" makes a
	// DENY do at L4 what Istio's does: nothing, where L4 sees nothing of it.
	annotationUnseen = "ambit.io/unseen-deny"
)

// authorization makes the L4 policy of an AuthorizationPolicy: nil if ztunnel
// has no part in it. The condition is nil for one that only waypoints read;
// that is guardPolicy's.
//
// An ALLOW rule with a part that L4 cannot see is left out, so less is
// allowed. A DENY rule loses that part, so more is denied; upstream would deny
// nothing where nothing else is left (controlplane spec 2.3).
func authorization(m objects.MeshConfig, ap *security.AuthorizationPolicy) (*mesh.Policy, *Condition) {
	if ap.Spec.GetTargetRef() != nil || len(ap.Spec.GetTargetRefs()) > 0 {
		return nil, nil
	}
	c := conversion{mesh: m, namespace: ap.Namespace, action: actionOf(ap)}
	c.lax = c.action == mesh.ActionDeny && firstOf(ap.Annotations[annotationUnseen], m.UnseenDeny) == objects.UnseenDenyIgnore
	if c.action != mesh.ActionAllow && c.action != mesh.ActionDeny {
		c.note("Action %s is not enforced at L4: the policy has no effect here.", ap.Spec.GetAction())
		return nil, c.condition(ap)
	}
	return c.policy(ap, authorizationScope(m, ap)), c.condition(ap)
}

// actionOf reads an action. One of a later API is taken for the strict one.
func actionOf(ap *security.AuthorizationPolicy) mesh.Action {
	switch ap.Spec.GetAction() {
	case api.AuthorizationPolicy_ALLOW:
		return mesh.ActionAllow
	case api.AuthorizationPolicy_AUDIT:
		return mesh.ActionAudit
	case api.AuthorizationPolicy_CUSTOM:
		return mesh.ActionCustom
	case api.AuthorizationPolicy_DENY:
	}
	return mesh.ActionDeny
}

// policy converts the rules.
func (c *conversion) policy(ap *security.AuthorizationPolicy, scope mesh.PolicyScope) *mesh.Policy {
	p := &mesh.Policy{
		Key:   mesh.PolicyKey{Namespace: ap.Namespace, Name: ap.Name},
		Scope: scope, Action: c.action, DryRun: c.dryRun(ap.Annotations),
	}
	for i, r := range ap.Spec.GetRules() {
		c.rule = i
		p.Rules = append(p.Rules, c.convert(r)...)
	}
	return p
}

func authorizationScope(m objects.MeshConfig, ap *security.AuthorizationPolicy) mesh.PolicyScope {
	switch {
	case len(ap.Spec.GetSelector().GetMatchLabels()) > 0:
		return mesh.ScopeSelector
	case ap.Namespace == m.RootNamespace:
		return mesh.ScopeGlobal
	}
	return mesh.ScopeNamespace
}

// conversion is one policy being converted, with what its author must know.
type conversion struct {
	mesh      objects.MeshConfig
	namespace string
	action    mesh.Action
	// waypoint is set for a policy of waypoints, which see requests.
	waypoint bool
	// lax leaves out of a DENY what L4 cannot see, and the rule if nothing else is
	// left of a part of it.
	lax   bool
	rule  int
	notes []string
}

func (c *conversion) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *conversion) condition(ap *security.AuthorizationPolicy) *Condition {
	out := &Condition{
		Object:     objects.Ref{Kind: objects.KindAuthorizationPolicy, Key: objects.Key{Namespace: ap.Namespace, Name: ap.Name}},
		Generation: ap.Generation,
		Type:       TypeZtunnelAccepted,
		Status:     len(c.notes) == 0,
		Reason:     ReasonAccepted,
		Message:    "The policy is enforced at L4 as written.",
	}
	if !out.Status {
		out.Reason, out.Message = ReasonUnsupportedValue, strings.Join(c.notes, " ")
	}
	return out
}

func (c *conversion) dryRun(annotations map[string]string) bool {
	dry, ok := isDryRun(annotations)
	if !ok {
		c.note("Annotation %s is %q, neither true nor false: the policy is enforced.", annotationDryRun, annotations[annotationDryRun])
	}
	return dry
}

// isDryRun reads the mark, and whether it can be read.
func isDryRun(annotations map[string]string) (dry, ok bool) {
	text, marked := annotations[annotationDryRun]
	if !marked {
		return false, true
	}
	dry, err := strconv.ParseBool(text)
	return dry, err == nil
}

// trouble is an attribute that cannot be evaluated.
type trouble struct{ attribute, why string }

func (t trouble) String() string { return t.attribute + " " + t.why }

// part is one from, to or when: alternatives of which one must hold, or
// nothing to hold if it is wide.
type part struct {
	alternatives []alternative
	wide         bool
	// unseen says that alternatives were left out.
	unseen  bool
	trouble []trouble
}

// alternative is matches that must all hold. There is more than one only
// where two lists of one source speak of one attribute.
type alternative []mesh.Match

// convert makes the rules on the wire of one rule: none if it was left out,
// several if a source of it needs two matches at once.
func (c *conversion) convert(r *api.Rule) []mesh.Rule {
	var parts []part
	if from := r.GetFrom(); len(from) > 0 {
		parts = append(parts, gather(c.lax, from, func(f *api.Rule_From) attributes { return c.source(f.GetSource()) }))
	}
	if to := r.GetTo(); len(to) > 0 {
		parts = append(parts, gather(c.lax, to, func(t *api.Rule_To) attributes { return c.operation(t.GetOperation()) }))
	}
	for _, when := range r.GetWhen() {
		parts = append(parts, gather(c.lax, []*api.Condition{when}, c.when))
	}
	if !c.report(parts) {
		return nil
	}
	rules := []mesh.Rule{{}}
	for _, p := range parts {
		if p.unseen && len(p.alternatives) == 0 {
			return nil
		}
		if !p.wide {
			rules = cross(rules, p.alternatives)
		}
	}
	return rules
}

// gather converts the alternatives of a part. One without any attribute left
// holds always, and so does the part: only a DENY comes to use that.
func gather[T any](lax bool, in []T, convert func(T) attributes) part {
	var p part
	for _, x := range in {
		a := convert(x)
		p.trouble = append(p.trouble, a.trouble...)
		if lax && a.unseen() {
			p.unseen = true
			continue
		}
		if a.empty() {
			p.wide = true
			if len(a.trouble) == 0 {
				p.trouble = append(p.trouble, trouble{a.what, "has no condition"})
			}
			continue
		}
		p.alternatives = append(p.alternatives, a.matches())
	}
	return p
}

// report notes what cannot be evaluated, and whether the rule stays.
func (c *conversion) report(parts []part) bool {
	var all []string
	for _, p := range parts {
		for _, t := range p.trouble {
			all = append(all, t.String())
		}
	}
	if len(all) == 0 {
		return true
	}
	effect := effects[c.action]
	if c.lax {
		effect = "Where L4 can see nothing else, this DENY rule has no effect at L4, as " + annotationUnseen + " demands."
	}
	c.note("Rule %d: %s. %s", c.rule, strings.Join(all, ", "), effect)
	return c.action != mesh.ActionAllow
}

// effects tell what becomes of a rule with a part that cannot be evaluated.
var effects = map[mesh.Action]string{
	mesh.ActionAllow:  "This ALLOW rule is left out, so what only it allows is denied.",
	mesh.ActionDeny:   "This DENY rule is enforced without that, so it denies everything that the rest of it describes.",
	mesh.ActionAudit:  "This AUDIT rule does without that, so it notes everything that the rest of it describes.",
	mesh.ActionCustom: "This CUSTOM rule does without that, so its provider is asked about everything that the rest of it describes.",
}

// cross adds a part to rules: as one clause where each alternative is one
// match, else as rules of their own, since rules are OR-ed as well.
func cross(rules []mesh.Rule, alternatives []alternative) []mesh.Rule {
	var clause mesh.Clause
	for _, a := range alternatives {
		if len(a) > 1 {
			return split(rules, alternatives)
		}
		clause.Matches = append(clause.Matches, a[0])
	}
	for i := range rules {
		rules[i].Clauses = append(rules[i].Clauses, clause)
	}
	return rules
}

func split(rules []mesh.Rule, alternatives []alternative) []mesh.Rule {
	var out []mesh.Rule
	for _, r := range rules {
		for _, a := range alternatives {
			clauses := append([]mesh.Clause(nil), r.Clauses...)
			for _, m := range a {
				clauses = append(clauses, mesh.Clause{Matches: []mesh.Match{m}})
			}
			out = append(out, mesh.Rule{Clauses: clauses})
		}
	}
	return out
}

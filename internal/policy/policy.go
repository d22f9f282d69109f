// Package policy decides whether a connection or a request may pass
// (dataplane spec 5.2 and 5.3, controlplane spec 2.5). It owns the evaluation
// order, the meaning of every attribute and the reason given; it refuses to
// know where policies come from or which apply to a workload, to verify tokens
// and to ask external authorizers: the caller brings their results. Called by
// ztunnel/route and waypoint/exchange; pure.
package policy

import (
	"fmt"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Cause is why a verdict is what it is.
type Cause uint8

// The causes. The zero value is a verdict nobody gave: denied.
const (
	CauseNone Cause = iota
	// CauseNoPolicy: no ALLOW policy applies, so everything not denied passes.
	CauseNoPolicy
	// CauseAllowed: an ALLOW policy matched.
	CauseAllowed
	// CauseDenied: a DENY policy matched.
	CauseDenied
	// CauseNotAllowed: ALLOW policies apply and none matched.
	CauseNotAllowed
	// CauseUnknownPolicy: a policy is named that is not known (we close where
	// upstream opens, dataplane spec 5.1).
	CauseUnknownPolicy
	// CauseNotAsked: a CUSTOM policy matched, and nobody asked its provider.
	CauseNotAsked
	// CauseNoProvider: a CUSTOM policy matched whose provider is not configured.
	CauseNoProvider
	// CauseRefused: the provider of a CUSTOM policy said no.
	CauseRefused
	// CauseForeign: the peer's trust domain is none of the mesh's.
	CauseForeign
	// CauseUnanswered: the provider of a CUSTOM policy could not be asked.
	CauseUnanswered
)

// Verdict is the decision with the rule that made it. The zero value denies.
type Verdict struct {
	Allow bool
	Cause Cause
	// Policy is the policy that decided, if one did.
	Policy mesh.PolicyKey
	// Rule is the index of the deciding rule within Policy, -1 if none.
	Rule int
	// DryRun are the dry-run policies that apply, Audit the AUDIT policies that
	// matched. Neither has a part in the verdict.
	DryRun []Rehearsal
	Audit  []mesh.PolicyKey
}

// String is one line for logs and users.
func (v Verdict) String() string {
	switch v.Cause {
	case CauseNoPolicy:
		return "allowed: no policy restricts it"
	case CauseAllowed:
		return fmt.Sprintf("allowed by ALLOW policy %s rule %d", v.Policy, v.Rule)
	case CauseDenied:
		return fmt.Sprintf("denied by DENY policy %s rule %d", v.Policy, v.Rule)
	case CauseNotAllowed:
		return fmt.Sprintf("denied: no ALLOW policy matches (%s applies)", v.Policy)
	case CauseUnknownPolicy:
		return fmt.Sprintf("denied: policy %s is not known here yet", v.Policy)
	case CauseNotAsked:
		return fmt.Sprintf("denied: the provider of CUSTOM policy %s rule %d was not asked", v.Policy, v.Rule)
	case CauseNoProvider:
		return fmt.Sprintf("denied: the provider of CUSTOM policy %s is not configured", v.Policy)
	case CauseRefused:
		return fmt.Sprintf("denied by the provider of CUSTOM policy %s rule %d", v.Policy, v.Rule)
	case CauseUnanswered:
		return fmt.Sprintf("denied: the provider of CUSTOM policy %s rule %d did not answer", v.Policy, v.Rule)
	case CauseForeign:
		return "denied: the peer is of another trust domain"
	case CauseNone:
	}
	return "denied: not evaluated"
}

// Set is the policies that apply to one workload or service. Unknown holds keys
// that it lists and nobody has sent: they close.
type Set struct {
	Policies []*mesh.Policy
	Unknown  []mesh.PolicyKey
}

// Evaluate gives the verdict of s on a connection of which nothing more is
// known than c.
func Evaluate(s Set, c Connection) Verdict { return EvaluateRequest(s, Request{Connection: c}) }

// EvaluateRequest gives the verdict of s on a request, or on a connection if it
// has no HTTP: a CUSTOM match that nobody asked about closes, any DENY match
// closes, an unknown policy closes, then any ALLOW match opens, then ALLOW
// policies without a match close, then it is open.
func EvaluateRequest(s Set, q Request) Verdict {
	q.tidy()
	v := Verdict{Rule: -1}
	var allow, applies *mesh.Policy
	allowRule := -1
	for _, p := range s.Policies {
		rule := matchRules(p, &q)
		switch {
		case p.DryRun:
			v.DryRun = append(v.DryRun, Rehearsal{Policy: p.Key, Action: p.Action, Rule: rule})
		case p.Action == mesh.ActionAllow:
			applies = p
			if rule >= 0 && allow == nil {
				allow, allowRule = p, rule
			}
		case rule < 0:
		case p.Action == mesh.ActionAudit:
			v.Audit = append(v.Audit, p.Key)
		case v.Cause == CauseNotAsked: // it comes before every DENY
		case p.Action == mesh.ActionDeny && v.Cause != CauseDenied:
			v.Cause, v.Policy, v.Rule = CauseDenied, p.Key, rule
		case p.Action == mesh.ActionCustom && !q.Asked:
			v.Cause, v.Policy, v.Rule = CauseNotAsked, p.Key, rule
		}
	}
	switch {
	case v.Cause != CauseNone:
	case len(s.Unknown) > 0:
		v.Cause, v.Policy = CauseUnknownPolicy, s.Unknown[0]
	case allow != nil:
		v.Allow, v.Cause, v.Policy, v.Rule = true, CauseAllowed, allow.Key, allowRule
	case applies != nil:
		v.Cause, v.Policy = CauseNotAllowed, applies.Key
	default:
		v.Allow, v.Cause = true, CauseNoPolicy
	}
	v.rehearse()
	return v
}

// Ask is a CUSTOM policy whose provider must be asked about a request.
type Ask struct {
	Policy *mesh.Policy
	Rule   int
}

// Verdict is that of an Ask that ends the request, for the cause.
func (a Ask) Verdict(c Cause) Verdict { return Verdict{Cause: c, Policy: a.Policy.Key, Rule: a.Rule} }

// Asks are the CUSTOM policies that match. The caller asks the provider of
// each, a policy without one denies, and sets Asked of the request once all
// have let it pass; only then is it evaluated.
func Asks(s Set, q Request) []Ask {
	var out []Ask
	q.tidy()
	for _, p := range s.Policies {
		if p.Action != mesh.ActionCustom || p.DryRun {
			continue
		}
		if rule := matchRules(p, &q); rule >= 0 {
			out = append(out, Ask{Policy: p, Rule: rule})
		}
	}
	return out
}

// Opinion is what one policy by itself says.
type Opinion struct {
	Policy mesh.PolicyKey
	Action mesh.Action
	DryRun bool
	// Rule is the first rule that matches, -1 if none does.
	Rule int
}

// Judge gives every policy's own opinion, for explanations; the verdict is
// EvaluateRequest's.
func Judge(s Set, q Request) []Opinion {
	q.tidy()
	out := make([]Opinion, 0, len(s.Policies))
	for _, p := range s.Policies {
		out = append(out, Opinion{Policy: p.Key, Action: p.Action, DryRun: p.DryRun, Rule: matchRules(p, &q)})
	}
	return out
}

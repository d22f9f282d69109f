// Package policy decides at L4 whether a connection may pass (dataplane spec
// 5.2 and 5.3). It owns the evaluation order and the reason given; it refuses
// to know where policies come from or which apply to a workload. Called by
// ztunnel/route and by the waypoint; pure.
package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Connection is what a policy may ask about.
type Connection struct {
	// Source is the peer's identity from TLS; zero for plaintext.
	Source   spiffe.ID
	SourceIP netip.Addr
	// Destination is the real upstream: pod address and container port.
	Destination netip.AddrPort
}

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
	// CauseUnknownPolicy: the workload names a policy that is not known (we
	// close where upstream opens, dataplane spec 5.1).
	CauseUnknownPolicy
)

// Verdict is the decision with the rule that made it. The zero value denies.
type Verdict struct {
	Allow bool
	Cause Cause
	// Policy is the policy that decided, if one did.
	Policy mesh.PolicyKey
	// Rule is the index of the deciding rule within Policy, -1 if none.
	Rule int
	// DryRun are the dry-run policies that would have matched.
	DryRun []mesh.PolicyKey
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
	case CauseNone:
	}
	return "denied: not evaluated"
}

// Set is the policies that apply to one workload. Unknown holds keys that the
// workload lists and nobody has sent: they close.
type Set struct {
	Policies []*mesh.Policy
	Unknown  []mesh.PolicyKey
}

// Evaluate gives the verdict of s on c: any DENY match closes, an unknown policy
// closes, then any ALLOW match opens, then ALLOW policies without a
// match close, then it is open.
func Evaluate(s Set, c Connection) Verdict {
	// An address has many forms and a block contains only one of them.
	c.SourceIP = c.SourceIP.Unmap().WithZone("")
	c.Destination = netip.AddrPortFrom(c.Destination.Addr().Unmap().WithZone(""), c.Destination.Port())
	var dry []mesh.PolicyKey
	var allow, applies *mesh.Policy
	allowRule := -1
	for _, p := range s.Policies {
		rule := matchRules(p.Rules, c)
		switch {
		case p.DryRun:
			if rule >= 0 {
				dry = append(dry, p.Key)
			}
		case p.Action == mesh.ActionDeny:
			if rule >= 0 {
				return Verdict{Cause: CauseDenied, Policy: p.Key, Rule: rule, DryRun: dry}
			}
		default:
			applies = p
			if rule >= 0 && allow == nil {
				allow, allowRule = p, rule
			}
		}
	}
	switch {
	case len(s.Unknown) > 0:
		return Verdict{Cause: CauseUnknownPolicy, Policy: s.Unknown[0], Rule: -1, DryRun: dry}
	case allow != nil:
		return Verdict{Allow: true, Cause: CauseAllowed, Policy: allow.Key, Rule: allowRule, DryRun: dry}
	case applies != nil:
		return Verdict{Cause: CauseNotAllowed, Policy: applies.Key, Rule: -1, DryRun: dry}
	}
	return Verdict{Allow: true, Cause: CauseNoPolicy, Rule: -1, DryRun: dry}
}

// matchRules is the index of the first rule that matches, or -1.
func matchRules(rules []mesh.Rule, c Connection) int {
	return slices.IndexFunc(rules, func(r mesh.Rule) bool {
		for _, cl := range r.Clauses {
			if !matchClause(cl, c) {
				return false
			}
		}
		return true
	})
}

func matchClause(cl mesh.Clause, c Connection) bool {
	if len(cl.Matches) == 0 {
		return true
	}
	return slices.ContainsFunc(cl.Matches, func(m mesh.Match) bool { return matchOne(&m, c) })
}

// matchOne is true when m has an attribute and all of its attributes hold.
func matchOne(m *mesh.Match, c Connection) bool {
	account := mesh.ServiceAccount{Namespace: c.Source.Namespace, Name: c.Source.ServiceAccount}
	// Without an identity no principal and no account matches, not even by an
	// empty text; the namespace is compared as "" (dataplane spec 5.3).
	known := !c.Source.IsZero()
	set, ok := false, true
	attribute(&set, &ok, m.Principals, m.NotPrincipals, func(x mesh.StringMatch) bool { return known && x.Matches(c.Source.Principal()) })
	attribute(&set, &ok, m.Namespaces, m.NotNamespaces, func(x mesh.StringMatch) bool { return x.Matches(c.Source.Namespace) })
	attribute(&set, &ok, m.ServiceAccounts, m.NotServiceAccounts, func(x mesh.ServiceAccount) bool { return known && x == account })
	attribute(&set, &ok, m.SourceIPs, m.NotSourceIPs, func(x netip.Prefix) bool { return x.Contains(c.SourceIP) })
	attribute(&set, &ok, m.DestinationIPs, m.NotDestinationIPs, func(x netip.Prefix) bool { return x.Contains(c.Destination.Addr()) })
	attribute(&set, &ok, m.DestinationPorts, m.NotDestinationPorts, func(x uint16) bool { return x == c.Destination.Port() })
	return set && ok
}

// attribute folds one attribute's two lists: set when either is non-empty, ok
// cleared when the positive list has no match or the negative one has any.
func attribute[T any](set, ok *bool, want, not []T, match func(T) bool) {
	if len(want) > 0 {
		*set = true
		*ok = *ok && slices.ContainsFunc(want, match)
	}
	if len(not) > 0 {
		*set = true
		*ok = *ok && !slices.ContainsFunc(not, match)
	}
}

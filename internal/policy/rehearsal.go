package policy

import "github.com/ambit-mesh/ambit/internal/mesh"

// Rehearsal is what one dry-run policy would have made of a verdict, were it
// enforced beside the others.
type Rehearsal struct {
	Policy mesh.PolicyKey
	Action mesh.Action
	// Rule is the first rule that matches, -1 if none does.
	Rule int
	// Allow is the verdict that it would have led to.
	Allow bool
}

// rehearse completes the rehearsals of a verdict that is settled. An ALLOW
// changes it by matching where no other ALLOW does, or by being the first that
// applies; what asks or notes changes nothing that is known here.
func (v *Verdict) rehearse() {
	for i := range v.DryRun {
		r := &v.DryRun[i]
		matches := r.Rule >= 0
		switch r.Action {
		case mesh.ActionDeny:
			r.Allow = v.Allow && !matches
		case mesh.ActionAllow:
			r.Allow = v.Allow && (matches || v.Cause == CauseAllowed) || matches && v.Cause == CauseNotAllowed
		case mesh.ActionAudit, mesh.ActionCustom:
			r.Allow = v.Allow
		}
	}
}

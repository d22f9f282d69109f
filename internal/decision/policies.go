package decision

import (
	"fmt"

	"github.com/ambit-mesh/ambit/internal/policy"
)

// Policies tells what each policy of a set says by itself, and marks the one
// that gave the verdict.
func Policies(s policy.Set, q policy.Request, v policy.Verdict) []Verdict {
	var out []Verdict
	for _, o := range policy.Judge(s, q) {
		says := "does not match"
		if o.Rule >= 0 {
			says = fmt.Sprintf("rule %d matches", o.Rule)
		}
		out = append(out, Verdict{
			Policy: o.Policy.String(), Action: o.Action.String(), DryRun: o.DryRun, Says: says,
			Decided: !o.DryRun && o.Policy == v.Policy && v.Cause != policy.CauseNone,
		})
	}
	for _, k := range s.Unknown {
		out = append(out, Verdict{
			Policy: k.String(), Action: "unknown", Says: "not known here, or not understood: it closes",
			Decided: k == v.Policy && v.Cause == policy.CauseUnknownPolicy,
		})
	}
	return out
}

package exchange

import (
	"fmt"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// story is what is kept of a request: enough to work the explanation out when
// somebody asks, and no more of the configuration than concerns it.
type story struct {
	record   telemetry.Exchange
	policies policy.Set
	asked    policy.Request
	verdict  policy.Verdict
	routes   *match.Routes
	query    match.Request
}

// Tell implements decision.Teller.
func (s *story) Tell() decision.Story {
	out := decision.OfExchange(&s.record)
	if s.asked.HTTP == nil {
		return out // it ended before policies were asked
	}
	out.Ruling = s.verdict.String()
	for _, o := range policy.Judge(s.policies, s.asked) {
		out.Policies = append(out.Policies, decision.Verdict{
			Policy: o.Policy.String(), Action: o.Action.String(), DryRun: o.DryRun, Says: opinion(o),
			Decided: o.Policy == s.verdict.Policy && !o.DryRun,
		})
	}
	for _, k := range s.policies.Unknown {
		out.Policies = append(out.Policies, decision.Verdict{Policy: k.String(), Says: "is not known here yet, and closes", Decided: k == s.verdict.Policy})
	}
	if !s.verdict.Allow {
		return out
	}
	for _, step := range s.routes.Explain(&s.query) {
		out.Routes = append(out.Routes, decision.Match{Route: routeName(step), Rule: ruleName(step), Taken: step.Taken(), Says: step.Says()})
	}
	return out
}

func opinion(o policy.Opinion) string {
	if o.Rule < 0 {
		return "no rule matches"
	}
	return fmt.Sprintf("rule %d matches", o.Rule)
}

func routeName(s match.Step) string {
	if s.Route == (mesh.RouteKey{}) {
		return ""
	}
	return s.Route.String()
}

// ruleName is the author's, or the number.
func ruleName(s match.Step) string {
	switch {
	case s.RuleName != "":
		return s.RuleName
	case s.Rule >= 0:
		return strconv.Itoa(s.Rule)
	}
	return ""
}

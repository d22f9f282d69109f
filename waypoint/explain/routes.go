package explain

import (
	"fmt"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// mostPassed bounds how many alternatives that were not taken are told: a port
// may have thousands.
const mostPassed = 100

// Routes tells how routing came to its decision.
func Routes(steps []match.Step) []decision.Match {
	var out []decision.Match
	passed := 0
	for _, s := range steps {
		if passed++; passed > mostPassed && !s.Taken() && !s.Route.IsZero() {
			continue
		}
		out = append(out, told(s))
	}
	if left := len(steps) - len(out); left > 0 {
		last := out[len(out)-1]
		out = append(out[:len(out)-1], decision.Match{Says: fmt.Sprintf("%d further alternatives do not match", left)}, last)
	}
	return out
}

func told(s match.Step) decision.Match {
	m := decision.Match{Taken: s.Taken(), Says: s.Says()}
	if s.Route.IsZero() {
		return m
	}
	m.Route = s.Route.String()
	if s.Rule < 0 {
		return m
	}
	m.Rule = strconv.Itoa(s.Rule)
	if s.RuleName != "" {
		m.Rule += " (" + s.RuleName + ")"
	}
	if s.Match >= 0 {
		m.Rule += " match " + strconv.Itoa(s.Match)
	}
	return m
}

package explain

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

func TestThousandsOfAlternativesAreToldInBrief(t *testing.T) {
	key := mesh.RouteKey{Kind: mesh.RouteHTTP, Namespace: "shop", Name: "web"}
	steps := []match.Step{{Reason: match.ReasonProducer, Rule: -1, Match: -1, Want: "shop"}}
	for i := range 5000 {
		steps = append(steps, match.Step{Reason: match.ReasonPath, Route: key, Rule: i, Match: -1, Want: fmt.Sprint("path prefix /", i)})
	}
	for _, tt := range []struct {
		sentence string
		last     match.Step
		want     string
	}{
		{"the one that is taken is told", match.Step{Reason: match.ReasonTaken, Route: key, Rule: 5000, RuleName: "last", Match: 2, Want: "every path"}, "HTTPRoute/shop/web rule 5000 (last) match 2 taken: matches every path"},
		{"or that none is", match.Step{Reason: match.ReasonNotFound, Rule: -1, Match: -1}, "none of the routes matches"},
	} {
		told := Routes(append(steps, tt.last))
		if len(told) > mostPassed+3 || told[len(told)-1].String() != tt.want || !strings.Contains(told[len(told)-2].Says, "further alternatives do not match") {
			t.Errorf("%s: %d lines, the last two %q and %q", tt.sentence, len(told), told[len(told)-2], told[len(told)-1])
		}
	}
	if told := Routes(steps[:3]); len(told) != 3 || told[0].Route != "" || told[2].Rule != "1" {
		t.Errorf("a few: %+v", told)
	}
	if told := Routes(nil); len(told) != 0 {
		t.Errorf("none: %+v", told)
	}
}

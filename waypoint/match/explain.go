package match

import (
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Explain tells how Find comes to its decision: which routes speak for the
// client, then every alternative that was asked in the order of precedence, up
// to the one that matches.
func (r *Routes) Explain(q *Request) []Step {
	g := r.group(q.Client)
	if g == nil {
		return []Step{about(ReasonNoRoutes, "")}
	}
	steps := []Step{about(ReasonProducer, g.namespace)}
	if g != r.producer {
		steps[0].Reason = ReasonConsumer
	}
	for _, route := range g.lost {
		steps = append(steps, Step{Reason: ReasonOtherKind, Route: route.Key, Rule: -1, Match: -1, Want: g.kind.String()})
	}
	for _, route := range g.unusable {
		steps = append(steps, Step{Reason: ReasonUnusable, Route: route.Key, Rule: -1, Match: -1})
	}
	if g.kind > mesh.RouteHTTP {
		return append(steps, about(ReasonNotHTTP, g.kind.String()))
	}
	path, err := Normalize(q.Path)
	if err != nil {
		return append(steps, about(ReasonBadPath, err.Error()))
	}
	for _, c := range g.ordered {
		step := c.explain(q, path)
		if steps = append(steps, step); step.Taken() {
			return steps
		}
	}
	return append(steps, about(ReasonNotFound, ""))
}

// explain asks everything, without an index.
func (c *candidate) explain(q *Request, path string) Step {
	rule := &c.route.Rules[c.rule]
	s := Step{Route: c.route.Key, Rule: rule.Index, RuleName: rule.Name, Match: c.match}
	switch {
	case c.call != nil && !c.call.matches(path):
		s.Reason, s.Want = ReasonCall, c.call.String()
	case !c.pathMatches(path):
		s.Reason, s.Want = ReasonPath, describePath(c.path)
	case !c.methodMatches(q):
		s.Reason, s.Want = ReasonMethod, "method "+c.method
	default:
		for _, t := range c.headers {
			if value, there := q.header(t.name); !t.matches(value, there) {
				s.Reason, s.Want = missing(there, ReasonHeader), "header "+t.String()
				return s
			}
		}
		for _, t := range c.query {
			if value, there := q.parameter(t.name); !t.matches(value, there) {
				s.Reason, s.Want = missing(there, ReasonParameter), "query parameter "+t.String()
				return s
			}
		}
		s.Reason, s.Want = ReasonTaken, c.String()
	}
	return s
}

// missing is the reason behind a reason where there is no value at all.
func missing(there bool, why Reason) Reason {
	if there {
		return why
	}
	return why + 1
}

func (c *candidate) pathMatches(path string) bool {
	switch c.path.Op {
	case mesh.PathExact:
		return path == c.path.Value
	case mesh.PathPrefix:
		rest, ok := strings.CutPrefix(path, c.path.Value)
		return c.path.Value == "" || ok && (rest == "" || rest[0] == '/')
	case mesh.PathRegex:
		return c.pathRE.MatchString(path)
	case mesh.PathAny:
	}
	return true
}

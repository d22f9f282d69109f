package match

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Reason is why something was taken or not.
type Reason uint8

// The reasons. Those before ReasonTaken are about all routes or a whole route,
// those after it about one alternative that does not match.
const (
	// ReasonNoRoutes: no route speaks for this client.
	ReasonNoRoutes Reason = iota
	// ReasonConsumer: the routes of the client's namespace speak for it, and no
	// others do.
	ReasonConsumer
	// ReasonProducer: the routes of the service's namespace speak for it.
	ReasonProducer
	// ReasonOtherKind: routes of a stronger kind are attached to the port.
	ReasonOtherKind
	// ReasonUnusable: the route cannot be read.
	ReasonUnusable
	// ReasonNotHTTP: the routes are about connections, not about requests.
	ReasonNotHTTP
	// ReasonBadPath: the request's path has no normal form.
	ReasonBadPath
	// ReasonNotFound: none of the routes matches.
	ReasonNotFound
	// ReasonTaken: this is the alternative that matched.
	ReasonTaken
	ReasonPath
	ReasonCall
	ReasonMethod
	ReasonHeader
	ReasonHeaderMissing
	ReasonParameter
	ReasonParameterMissing
)

// Step is one line of an explanation. Values that came with the request are not
// in it, since headers carry secrets; only what the author wrote is.
type Step struct {
	Reason Reason
	// Route is zero in steps about all routes.
	Route mesh.RouteKey
	// Rule is the author's index. Rule and Match are -1 in steps about a whole
	// route; Match is -1 too in a rule that needs none.
	Rule, Match int
	RuleName    string
	// Want is what was asked for: a header with its value, a path, a namespace.
	Want string
}

// Taken reports whether the step is the match.
func (s Step) Taken() bool { return s.Reason == ReasonTaken }

// Says is the reason in words.
func (s Step) Says() string {
	switch s.Reason {
	case ReasonNoRoutes:
		return "no route speaks for this client: the service itself answers"
	case ReasonConsumer:
		return "the client's namespace " + s.Want + " has routes of its own: only they speak for it"
	case ReasonProducer:
		return "the routes of the service's namespace " + s.Want + " speak for this client"
	case ReasonOtherKind:
		return "not asked: a " + s.Want + " is attached to this port too"
	case ReasonUnusable:
		return "matches nothing: it cannot be used as it is written"
	case ReasonNotHTTP:
		return "no " + s.Want + " is about requests: the service itself answers"
	case ReasonBadPath:
		return "the path has no normal form: " + s.Want
	case ReasonNotFound:
		return "none of the routes matches"
	case ReasonTaken:
		return "matches " + s.Want
	case ReasonPath, ReasonCall, ReasonMethod:
		return s.Want + " is another"
	case ReasonHeader, ReasonParameter:
		return s.Want + " has another value"
	case ReasonHeaderMissing, ReasonParameterMissing:
		return s.Want + " is missing"
	}
	return "?"
}

// String is the step for people: the rule and what became of it.
func (s Step) String() string {
	if s.Route.IsZero() {
		return s.Says()
	}
	text := s.Route.String()
	if s.Rule >= 0 {
		text += " rule " + strconv.Itoa(s.Rule)
	}
	if s.RuleName != "" {
		text += " (" + s.RuleName + ")"
	}
	if s.Match >= 0 {
		text += " match " + strconv.Itoa(s.Match)
	}
	return text + ": " + s.Says()
}

// about is a step about all routes.
func about(why Reason, want string) Step { return Step{Reason: why, Rule: -1, Match: -1, Want: want} }

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

// String is all that an alternative asks for.
func (c *candidate) String() string {
	var parts []string
	if c.call != nil {
		parts = append(parts, c.call.String())
	} else {
		parts = append(parts, describePath(c.path))
	}
	if c.method != "" {
		parts = append(parts, "method "+c.method)
	}
	for _, t := range c.headers {
		parts = append(parts, "header "+t.String())
	}
	for _, t := range c.query {
		parts = append(parts, "query parameter "+t.String())
	}
	return strings.Join(parts, ", ")
}

func describePath(p mesh.PathMatch) string {
	switch {
	case p.Op == mesh.PathExact:
		return "path " + p.Value
	case p.Op == mesh.PathPrefix && p.Value != "":
		return "path prefix " + p.Value
	case p.Op == mesh.PathRegex:
		return "path ~ " + p.Value
	}
	return "every path"
}

func (t *valueTest) String() string {
	if t.re != nil {
		return fmt.Sprintf("%s ~ %s", t.name, t.value)
	}
	return fmt.Sprintf("%s: %s", t.name, t.value)
}

func (t *callTest) String() string {
	if t.service == "" && t.method == "" {
		return "every call"
	}
	is := "call "
	if t.regex() {
		is = "call ~ "
	}
	return is + starred(t.service) + "/" + starred(t.method)
}

func starred(name string) string {
	if name == "" {
		return "*"
	}
	return name
}

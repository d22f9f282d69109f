package match

import (
	"strconv"

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

// Package match decides what becomes of a request at a waypoint: which route,
// rule and backend it takes, and what the rule's filters make of it
// (Gateway API, GEP-1294). It owns precedence, the groups of producers and
// consumers; it refuses to know where routes come from, whether their parents
// accepted them, and how anything is sent. Called by waypoint/terminate and
// waypoint/exchange, built by waypoint/table; pure.
package match

import (
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Request is what a route may ask about.
type Request struct {
	Method string
	// Path is escaped and without the query. Find compares its normal form.
	Path string
	// Query is raw, without the question mark.
	Query string
	// Host is the authority; a match of the header Host sees it.
	Host string
	// Header has canonical keys, as net/http gives them.
	Header map[string][]string
	// Client is zero for a client without an identity.
	Client spiffe.ID
}

// Outcome is what Find found.
type Outcome uint8

// The outcomes.
const (
	// Default: no route speaks for this client, so the request goes to the
	// service itself.
	Default Outcome = iota
	// Matched: a rule takes the request.
	Matched
	// NotFound: routes speak for this client and none matches, which answers
	// 404 (gRPC: UNIMPLEMENTED) or ends the connection.
	NotFound
)

// String names the outcome.
func (o Outcome) String() string {
	return [...]string{"default", "matched", "not found", "?"}[o&3]
}

// Decision is the outcome with the rule that made it.
type Decision struct {
	Outcome Outcome
	// Route and Rule, an index of Route.Rules, are what matched; Match is the index
	// of the alternative, -1 of a rule that needs none.
	Route *mesh.Route
	Rule  int
	Match int
	// Prefix is what a path edit replaces: the matched prefix without its last
	// slash, empty for "/", the whole path for an exact match.
	Prefix string
}

// Spec is the rule that matched, nil if none did.
func (d Decision) Spec() *mesh.RouteRule {
	if d.Outcome != Matched {
		return nil
	}
	return &d.Route.Rules[d.Rule]
}

// Choose picks a backend of the rule by weight, with rnd giving a number from
// 0 to n-1. False means that the request is answered 500: there is no backend,
// or the share of an invalid one was hit, which is then returned for its
// reason. A share is never given to others.
func (d Decision) Choose(rnd func(n int) int) (mesh.Backend, bool) {
	rule := d.Spec()
	if rule == nil {
		return mesh.Backend{}, false
	}
	total := 0
	for i := range rule.Backends {
		total += int(rule.Backends[i].Weight)
	}
	if total == 0 {
		return mesh.Backend{}, false
	}
	n := rnd(total)
	for i := range rule.Backends {
		if n -= int(rule.Backends[i].Weight); n < 0 {
			b := rule.Backends[i]
			return b, b.Invalid == ""
		}
	}
	return mesh.Backend{}, false // rnd gave more than it was asked for
}

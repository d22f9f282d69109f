package exchange

import (
	"net/http"
	"strings"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/explain"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// story is what is kept of a request for whoever asks for it later: the record,
// and what policies and routes were asked, which do not change any more.
type story struct {
	record   telemetry.Exchange
	asked    policy.Request
	policies policy.Set
	verdict  policy.Verdict
	query    match.Request
	routes   *match.Routes
	// tokens are those that were looked for, of whom the verified one is in asked.
	tokens []*mesh.Authentication
	// large says that the header was too large to keep: what depends on it
	// cannot be told.
	large bool
}

// maxKept bounds the header of a request that is kept for its story.
const maxKept = 8 << 10

func (e *exchange) story() *story {
	s := &story{
		record: e.record, asked: e.asked, policies: e.policies, verdict: e.verdict,
		query: e.query, routes: e.routes, tokens: e.table.Authentications(e.guarded()),
	}
	if sizeOf(e.r.Header)+len(e.query.Query) > maxKept {
		s.large, s.query, s.asked = true, match.Request{}, policy.Request{}
	}
	return s
}

func sizeOf(h http.Header) int {
	n := 0
	for k, values := range h {
		for _, v := range values {
			n += len(k) + len(v)
		}
	}
	return n
}

// Tell implements decision.Teller.
func (s *story) Tell() decision.Story {
	out := decision.OfExchange(&s.record)
	out.Tokens = s.tokensTold()
	if s.verdict.Cause == policy.CauseNone {
		return out // it ended before policies were asked
	}
	out.Ruling = s.verdict.String()
	if s.large {
		out.Routes = []decision.Match{{Says: "the request's header was too large to keep: what policies and routes made of it is not known any more"}}
		return out
	}
	out.Policies = decision.Policies(s.policies, s.asked, s.verdict)
	if s.verdict.Allow {
		out.Routes = explain.Routes(s.routes.Explain(&s.query))
	}
	return out
}

// tokensTold is what became of the end user's token.
func (s *story) tokensTold() []decision.Line {
	if len(s.tokens) == 0 || s.asked.HTTP == nil {
		return nil
	}
	says := "none was sent"
	switch token := s.asked.HTTP.Token; {
	case token != nil:
		says = "verified, of " + token.Principal
	case s.record.Flag == telemetry.ExchangeBadToken && s.record.Err != nil:
		says = "refused: " + s.record.Err.Error()
	case s.verdict.Cause == policy.CauseNone || s.record.Flag == telemetry.ExchangeUnauthorized:
		return nil // nobody looked
	}
	var names []string
	for _, a := range s.tokens {
		names = append(names, a.Key.String())
	}
	return []decision.Line{{About: strings.Join(names, ", "), Says: says}}
}

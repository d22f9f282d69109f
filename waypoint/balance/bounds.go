package balance

import (
	"fmt"
	"time"
)

// enter counts a request in, if the bounds allow it.
func (g *group) enter(q *Query, now time.Time) error {
	bounds := &q.Settings.Connections
	inFlight := g.inFlight.Add(1)
	if bounds.MaxRequests > 0 && inFlight > int64(bounds.MaxRequests) {
		g.leave(false)
		return g.overflow("http2MaxRequests", bounds.MaxRequests)
	}
	retries := int64(0)
	if q.Retry {
		retries = g.retries.Add(1)
	}
	if bounds.MaxRetries > 0 && retries > int64(bounds.MaxRetries) {
		g.leave(true)
		return g.overflow("maxRetries", bounds.MaxRetries)
	}
	if b := q.Settings.RetryBudget; b != nil && !g.affords(q, retries, inFlight, now) {
		g.leave(true)
		return g.overflow("the percent of the retry budget", b.Percent)
	}
	return nil
}

// affords reports whether the retry budget has room.
func (g *group) affords(q *Query, retries, inFlight int64, now time.Time) bool {
	b := q.Settings.RetryBudget
	if b.Interval > 0 {
		return g.budget.allows(b, q.Retry, now)
	}
	return !q.Retry || retries <= int64(b.MinCount) || within(int(retries), b.Percent, int(inFlight))
}

func (g *group) overflow(bound string, value int) error {
	g.overflows.Add(1)
	return &OverflowError{Service: g.key.service, Port: g.key.port, Bound: fmt.Sprintf("%s %d", bound, value)}
}

// leave counts it out.
func (g *group) leave(retry bool) {
	g.inFlight.Add(-1)
	if retry {
		g.retries.Add(-1)
	}
}

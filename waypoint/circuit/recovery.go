package circuit

import (
	"fmt"
	"time"
)

// How an endpoint comes back.
const (
	probesWanted = 3
	probePause   = 250 * time.Millisecond
	// probePatience is how long an unanswered probe keeps others away.
	probePatience = 10 * time.Second

	stepWanted   = 3
	stepLasts    = time.Second
	stepPatience = 10 * time.Second
)

// steps are the shares of a ramping endpoint, in thousandths.
var steps = [...]uint32{50, 150, 350, 600}

// Whole is the share of an endpoint that is well.
const Whole = 1000

// Share is how much of what it would get without a breaker the endpoint gets,
// in thousandths. Probes come on top.
func (c *Circuit) Share() uint32 {
	switch c.state {
	case Closed:
		return Whole
	case Ramping:
		return steps[c.step]
	case Open, HalfOpen:
	}
	return 0
}

// NextProbe is when the endpoint may be probed; false is never.
func (c *Circuit) NextProbe() (time.Time, bool) {
	switch {
	case c.state == Open:
		return c.until, true
	case c.state == HalfOpen && !c.probing.IsZero():
		return c.probing.Add(probePatience), true
	case c.state == HalfOpen:
		return c.ask, true
	}
	return time.Time{}, false
}

// Probe says whether a request may be sent now as a probe, and takes it for
// sent. An open circuit whose ejection is over becomes half-open by it.
func (c *Circuit) Probe(now time.Time) bool {
	if at, ok := c.NextProbe(); !ok || now.Before(at) {
		return false
	}
	if c.state == Open {
		c.move(now, HalfOpen)
	}
	c.probing = now
	return true
}

// probed takes in the answer to a probe.
func (c *Circuit) probed(now time.Time, r *Rules, in Report) Change {
	c.probing, c.ask = time.Time{}, now.Add(probePause)
	if in.Outcome != Good {
		c.tripped = trip{ReasonProbe, fmt.Sprintf("a probe failed with a %s: %s", in.Outcome, in.Detail())}
		c.Eject(now, r)
		return Moved
	}
	if c.good++; c.good < probesWanted {
		return None
	}
	c.move(now, Ramping)
	return Moved
}

// ramped takes in an answer while the share grows.
func (c *Circuit) ramped(now time.Time, in Report) Change {
	if in.Outcome != Good {
		c.bad++
		c.good = 0
		if c.bad < 2 {
			return None
		}
		c.tripped = trip{ReasonRelapse, fmt.Sprintf("relapsed at %d %% with a %s: %s", steps[c.step]/10, in.Outcome, in.Detail())}
		return Trips
	}
	c.good++
	if lasted := now.Sub(c.since); c.good < stepWanted && lasted < stepPatience || lasted < stepLasts {
		return None
	}
	if c.step+1 == len(steps) {
		c.move(now, Closed)
		return Moved
	}
	c.step++
	c.since, c.good, c.bad = now, 0, 0
	return Moved
}

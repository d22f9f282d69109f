package circuit

import (
	"fmt"
	"time"
)

// State is where a circuit stands.
type State uint8

// The states. The zero value is closed: the endpoint is well.
const (
	Closed State = iota
	Open
	HalfOpen
	Ramping
)

// String is for users and metrics.
func (s State) String() string {
	return [...]string{"closed", "open", "half-open", "ramping"}[s&3]
}

// MarshalText is String: states are shown by name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reason is what tripped a circuit, in one word for metrics.
type Reason string

// The reasons.
const (
	ReasonServerErrors  Reason = "server-errors"
	ReasonGatewayErrors Reason = "gateway-errors"
	ReasonLocalFailures Reason = "local-failures"
	ReasonFailureRate   Reason = "failure-rate"
	ReasonProbe         Reason = "probe-failed"
	ReasonRelapse       Reason = "relapse"
)

// trip is why, in one word and in many.
type trip struct {
	why   Reason
	cause string
}

// Outcome is what an answer says about the endpoint.
type Outcome uint8

// The outcomes. The zero value says nothing.
const (
	Unknown Outcome = iota
	Good
	// ServerError is a status of 500 and more.
	ServerError
	// GatewayError is 502, 503 or 504, or an answer that broke off.
	GatewayError
	// LocalFailure is that of a connection, or of one's own patience.
	LocalFailure
	outcomes
)

// String is what a user reads.
func (o Outcome) String() string {
	switch o {
	case ServerError:
		return "server error"
	case GatewayError:
		return "gateway error"
	case LocalFailure:
		return "local failure"
	case Good:
		return "good answer"
	case Unknown, outcomes:
	}
	return "no answer"
}

// Report is the end of one request to the endpoint.
type Report struct {
	Outcome Outcome
	// Era is the circuit's when the request was sent, Probe whether it was sent
	// as one.
	Era   uint32
	Probe bool
	// Detail is what a user reads of a failure, as "status 503".
	Detail func() string
}

// Change is what a report did.
type Change uint8

// The changes. Trips asks for leave: the caller ejects, or does not.
const (
	None Change = iota
	Moved
	Trips
)

// Circuit is the breaker of one endpoint. The zero value is closed.
type Circuit struct {
	state State
	since time.Time
	era   uint32
	// tripped is what asks for an ejection, last what the last one was for.
	tripped, last trip

	// While closed.
	run         [outcomes]int // failures in a row, by the rule they count for
	window      time.Time     // when the window began
	sent, spoil int           // in the window
	// While open or half-open.
	until   time.Time // the end of the ejection
	probing time.Time // when the outstanding probe was sent; zero is none
	ask     time.Time // not before may the next probe be sent
	// While half-open or ramping.
	step, good, bad int

	relapses  int // ejections not forgiven
	lasted    time.Duration
	ejections int
}

// State is the present state.
func (c *Circuit) State() State { return c.state }

// Since is when it began; zero if it was never left.
func (c *Circuit) Since() time.Time { return c.since }

// Until is when an open circuit may be probed first.
func (c *Circuit) Until() time.Time { return c.until }

// Cause is why it was ejected last, for people.
func (c *Circuit) Cause() string { return c.last.cause }

// Reason is the same for machines; empty if it never was.
func (c *Circuit) Reason() Reason { return c.last.why }

// Ejections counts all of them.
func (c *Circuit) Ejections() int { return c.ejections }

// Era changes whenever what was sent before says nothing any more.
func (c *Circuit) Era() uint32 { return c.era }

// Report takes in the end of a request.
func (c *Circuit) Report(now time.Time, r *Rules, in Report) Change {
	if in.Outcome == Unknown {
		if in.Probe && in.Era == c.era {
			c.probing = time.Time{}
		}
		return None
	}
	if in.Era != c.era {
		return None
	}
	switch c.state {
	case Closed:
		return c.closed(now, r, in)
	case HalfOpen:
		if in.Probe {
			return c.probed(now, r, in)
		}
	case Ramping:
		return c.ramped(now, in)
	case Open:
	}
	return None
}

// closed counts, and trips on what the rules say.
func (c *Circuit) closed(now time.Time, r *Rules, in Report) Change {
	if r.Rate && now.Sub(c.window) >= r.Window {
		c.window, c.sent, c.spoil = now, 0, 0
	}
	c.sent++
	if in.Outcome == Good {
		c.run = [outcomes]int{}
		return None
	}
	c.spoil++
	c.count(r, in.Outcome)
	for _, rule := range [...]struct {
		of    Outcome
		limit int
		why   Reason
	}{
		{LocalFailure, r.LocalFailures, ReasonLocalFailures}, {GatewayError, r.GatewayErrors, ReasonGatewayErrors},
		{ServerError, r.ServerErrors, ReasonServerErrors},
	} {
		if n := c.run[rule.of]; rule.limit > 0 && n >= rule.limit {
			c.tripped = trip{rule.why, fmt.Sprintf("%d failures in a row, the last a %s: %s", n, in.Outcome, in.Detail())}
			return Trips
		}
	}
	if r.Rate && c.sent >= rateLeast && 2*c.spoil >= c.sent {
		c.tripped = trip{ReasonFailureRate, fmt.Sprintf("%d of %d requests failed in %s, the last with a %s: %s", c.spoil, c.sent, r.Window, in.Outcome, in.Detail())}
		return Trips
	}
	return None
}

// rateLeast is how many requests make a rate.
const rateLeast = 10

// count adds a failure to every run that it belongs to, and ends the others.
func (c *Circuit) count(r *Rules, o Outcome) {
	if o == LocalFailure && r.Split {
		c.run[LocalFailure]++ // it says nothing of what the endpoint answers
		return
	}
	c.run[ServerError]++
	c.extend(GatewayError, o != ServerError)
	c.extend(LocalFailure, o == LocalFailure)
}

func (c *Circuit) extend(run Outcome, longer bool) {
	if longer {
		c.run[run]++
	} else {
		c.run[run] = 0
	}
}

// Eject opens a circuit that has tripped.
func (c *Circuit) Eject(now time.Time, r *Rules) {
	if c.state == Closed && c.lasted > 0 {
		c.relapses = max(0, c.relapses-int(now.Sub(c.since)/c.lasted))
	}
	longest := max(MaxEjection, r.Base)
	c.lasted = r.Base
	for range c.relapses {
		if c.lasted = 2 * c.lasted; c.lasted >= longest {
			c.lasted = longest
			break
		}
	}
	c.relapses++
	c.ejections++
	c.last = c.tripped
	c.until = now.Add(c.lasted)
	c.move(now, Open)
}

// Reset closes a circuit whatever its state.
func (c *Circuit) Reset(now time.Time) {
	if c.state != Closed {
		c.move(now, Closed)
	}
}

// move begins a state.
func (c *Circuit) move(now time.Time, s State) {
	c.state, c.since = s, now
	c.era++
	c.run, c.window, c.sent, c.spoil = [outcomes]int{}, time.Time{}, 0, 0
	c.probing, c.step, c.good, c.bad = time.Time{}, 0, 0, 0
}

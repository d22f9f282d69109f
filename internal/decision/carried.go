package decision

import (
	"time"

	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// Carried is what a proxy keeps of a connection that has ended, or that was
// refused.
type Carried struct {
	Flow    telemetry.Flow
	Outcome telemetry.Outcome
	Start   time.Time
	// Sent and Received are bytes to and from the client, Duration until the end.
	Sent, Received uint64
	Duration       time.Duration
	// Asked is what policies were asked, and Verdict what they said; nil and zero
	// where none was.
	Asked    *policy.Request
	Policies policy.Set
	Verdict  policy.Verdict
	// Dialled is what the client asked for, where the Flow does not tell.
	Dialled string
	// Choice is how the endpoint was found, Attempts how it was reached.
	Choice   string
	Attempts []Attempt
}

// Passed reports whether it ended as its users wished.
func (c *Carried) Passed() bool { return c.Outcome.Flag == telemetry.FlagNone }

// Tell implements Teller.
func (c *Carried) Tell() Story {
	s := OfFlow(&c.Flow, c.Outcome)
	s.At, s.Choice, s.Attempts = c.Start, c.Choice, c.Attempts
	s.Outcome.Sent, s.Outcome.Received, s.Outcome.Duration = c.Sent, c.Received, c.Duration
	if c.Dialled != "" {
		s.Asked = c.Dialled
	}
	if c.Asked != nil {
		s.Policies, s.Ruling = Policies(c.Policies, *c.Asked, c.Verdict), c.Verdict.String()
	}
	return s
}

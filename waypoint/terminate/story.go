package terminate

import (
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// keep remembers a connection that has ended.
func (c *crossing) keep(o telemetry.Outcome, n telemetry.Counter) {
	t := c.told(o, n)
	c.Decisions.Keep(c.flow.ID, t.Passed(), t)
}

// told is what there is to tell of it.
func (c *crossing) told(o telemetry.Outcome, n telemetry.Counter) *decision.Carried {
	received, sent := n.Load()
	t := &decision.Carried{
		Flow: c.flow, Outcome: o, Start: c.start, Received: received, Sent: sent, Duration: time.Since(c.start), Verdict: c.verdict,
	}
	if c.dst.dialled.IsValid() {
		t.Dialled = c.dst.dialled.String()
	}
	if c.verdict.Cause != policy.CauseNone {
		asked := c.facts()
		t.Asked, t.Policies = &asked, c.table.Policies(c.guarded())
	}
	return t
}

package outbound

import (
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// note remembers an attempt for the story.
func (f *flight) note(d route.OutboundDecision, took time.Duration, err error) {
	f.choice = Choice(d)
	a := decision.Attempt{Address: d.At(), Duration: took}
	if d.Workload != nil {
		a.Workload = d.Workload.UID
	}
	if err != nil {
		a.Error = err.Error()
	}
	f.attempts = append(f.attempts, a)
}

// Choice says how a destination was found.
func Choice(d route.OutboundDecision) string {
	switch {
	case d.Waypoint:
		return "the waypoint of what was dialled"
	case d.Kind == route.Passthrough:
		return "nothing of the mesh is there: passed on in clear"
	case d.Host != "":
		return "an endpoint that is known by name, looked up: in clear"
	case d.Kind == route.Plain:
		return "it takes no tunnel: in clear"
	case d.Service != nil:
		return "an endpoint of the service, by a tunnel"
	}
	return "the workload that was dialled, by a tunnel"
}

// keep remembers the decision.
func (f *flight) keep(o telemetry.Outcome, received, sent uint64) {
	f.span.End(&f.flow, o, received, sent)
	c := &decision.Carried{
		Flow: f.flow, Outcome: o, Start: f.start, Received: received, Sent: sent, Duration: time.Since(f.start),
		Choice: f.choice, Attempts: f.attempts,
	}
	if f.dst.IsValid() {
		c.Dialled = f.dst.String()
	}
	f.Decisions.Keep(f.flow.ID, c.Passed(), c)
}

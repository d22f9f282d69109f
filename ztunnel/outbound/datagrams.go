package outbound

import (
	"context"
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/datagrams"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// Datagrams carries the UDP that the pod's programs send: each flow is decided and
// recorded as a connection is. What no tunnel takes, plainly sends.
func (o *Outbound) Datagrams(plainly datagrams.Direct) datagrams.Carrier {
	return flows{o, plainly}
}

type flows struct {
	out     *Outbound
	plainly datagrams.Direct
}

// Open implements datagrams.Carrier.
func (c flows) Open(ctx context.Context, f datagrams.Flow) (datagrams.Conn, error) {
	l := &flight{Outbound: c.out, plainly: &c.plainly, start: time.Now(), dst: f.Destination}
	l.flow = telemetry.Flow{
		ID: decision.NewID(), Direction: telemetry.Outbound, Datagrams: true,
		SourceAddr: f.Source, DestinationAddr: f.Destination, TraceParent: telemetry.NewTraceParent(),
	}
	if err := l.sender(ctx); err != nil {
		failed := telemetry.Outcome{Flag: telemetry.FlagConnect, Err: err}
		c.out.Recorder.Fail(l.flow, failed)
		l.keep(failed, 0, 0)
		return nil, err
	}
	to, err := l.connect(ctx)
	if err != nil {
		l.fail(err)
		return nil, err
	}
	return l.follow(to.datagrams), nil
}

func (f *flight) sendPlainly(ctx context.Context, d route.OutboundDecision) (far, error) {
	conn, err := f.plainly.Open(ctx, datagrams.Flow{Source: f.flow.SourceAddr, Destination: d.Dial})
	if err != nil {
		return far{}, fmt.Errorf("sending to %s: %w", d.At(), err)
	}
	return far{datagrams: conn}, nil
}

// follow keeps a flow among the pod's connections, and records its end.
func (f *flight) follow(conn datagrams.Conn) datagrams.Conn {
	ctx, tracked := f.Connections.Track(f.Cut, connections.Info{
		Direction: telemetry.Outbound, Datagrams: true, Source: f.flow.SourceAddr, Original: f.dst, Actual: f.flow.DestinationAddr,
		HBONE: !f.flow.SourceID.IsZero(), Started: f.start, Peer: f.flow.DestinationID, Reason: f.reason,
	})
	if why := route.Outlawed(f.Store.View(), f.src, f.dst); why != "" {
		tracked.Cut(why)
	}
	var record *telemetry.Connection
	var counted *datagrams.Counted
	counted = datagrams.NewCounted(ctx, conn, func(err error) {
		tracked.Done()
		f.Drops.Add(datagrams.UnreceivedReason, datagrams.Unreceived(conn))
		o := f.outcome(err)
		record.Close(o)
		received, sent := counted.Load()
		f.keep(o, received, sent)
	})
	record = f.Recorder.Open(f.flow, f.start, counted)
	return counted
}

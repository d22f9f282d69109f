package outbound

import (
	"context"
	"errors"
	"net"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/datagrams"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// far is the other side of a connection: plain or in a tunnel. The TCP
// connection stays itself, so that relay can splice. A flow of UDP has datagrams.
type far struct {
	tcp       *net.TCPConn
	stream    hbone.Stream
	datagrams datagrams.Conn
}

// carry relays until both directions have ended or ctx is done.
func (f *flight) carry(ctx context.Context, to far) {
	ctx, tracked := f.Connections.Track(ctx, connections.Info{
		Direction: telemetry.Outbound, Source: f.flow.SourceAddr, Original: f.dst, Actual: f.flow.DestinationAddr,
		HBONE: to.stream != nil, Started: f.start, Peer: f.flow.DestinationID, Reason: f.reason,
	})
	defer tracked.Done()
	// What changed between the decision and the tracking nobody else tells.
	if why := route.Outlawed(f.Store.View(), f.src, f.dst); why != "" {
		tracked.Cut(why)
	}
	var counts relay.Counts
	record := f.Recorder.Open(f.flow, f.start, &counts)
	var other relay.End = to.stream
	if to.tcp != nil {
		other = to.tcp
	}
	err := relay.Options{HalfOpen: f.HalfOpen}.Run(ctx, f.app, other, &counts)
	o := f.outcome(err)
	record.Close(o)
	received, sent := counts.Load()
	f.keep(o, received, sent)
}

// outcome is that of what was carried until err.
func (f *flight) outcome(err error) telemetry.Outcome {
	o := telemetry.Outcome{Err: err, Reason: f.reason}
	if _, cut := errors.AsType[*connections.Outlawed](err); cut {
		o.Flag, o.Cut = telemetry.FlagDeny, telemetry.CutPolicy
	} else if cut, why := connections.CutBy(f.Cut, err); cut != telemetry.CutNone {
		o.Cut, o.Err = cut, why
	}
	return o
}

// fail ends a connection that could not be made.
func (f *flight) fail(err error) {
	if f.app != nil {
		relay.Reset(f.app)
	}
	o := telemetry.Outcome{Flag: flag(err), Err: err, Reason: f.reason}
	f.Recorder.Open(f.flow, f.start, new(relay.Counts)).Close(o)
	f.keep(o, 0, 0)
}

// flag sorts an error into Istio's response flags.
func flag(err error) telemetry.Flag {
	if status, ok := errors.AsType[*hbone.StatusError](err); ok {
		if status.Response.Status == hbone.StatusUnauthorized {
			return telemetry.FlagDeny
		}
		return telemetry.FlagConnect
	}
	if refused, ok := errors.AsType[*refusedError](err); ok && refused.denied {
		return telemetry.FlagDeny
	}
	if _, ok := errors.AsType[*hbone.PeerError](err); ok {
		return telemetry.FlagTLSFailure
	}
	return telemetry.FlagConnect
}

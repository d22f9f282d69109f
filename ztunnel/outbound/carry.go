package outbound

import (
	"context"
	"errors"
	"net"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
)

// far is the other side of a connection: plain or in a tunnel. The TCP
// connection stays itself, so that relay can splice.
type far struct {
	tcp    *net.TCPConn
	stream hbone.Stream
}

// carry relays until both directions have ended or ctx is done.
func (f *flight) carry(ctx context.Context, to far) {
	ctx, tracked := f.Connections.Track(ctx, connections.Info{
		Direction: telemetry.Outbound, Source: f.flow.SourceAddr, Original: f.dst, Actual: f.flow.DestinationAddr,
		HBONE: to.stream != nil, Started: f.start, Peer: f.flow.DestinationID, Reason: f.reason,
	})
	defer tracked.Done()
	var counts relay.Counts
	record := f.Recorder.Open(f.flow, f.start, &counts)
	var other relay.End = to.stream
	if to.tcp != nil {
		other = to.tcp
	}
	err := relay.Options{HalfOpen: f.HalfOpen}.Run(ctx, f.app, other, &counts)
	o := telemetry.Outcome{Err: err, Reason: f.reason}
	record.Close(o)
	received, sent := counts.Load()
	f.keep(o, received, sent)
}

// fail ends a connection that could not be made.
func (f *flight) fail(err error) {
	relay.Reset(f.app)
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
	if _, ok := errors.AsType[*hbone.PeerError](err); ok {
		return telemetry.FlagTLSFailure
	}
	return telemetry.FlagConnect
}

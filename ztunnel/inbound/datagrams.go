package inbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/datagrams"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// errNotOurs refuses what a pod's rules would not bring here either.
var errNotOurs = errors.New("the UDP of the destination is not the mesh's")

// flowIn carries a CONNECT-UDP to the application until it ends, unless it is
// rejected.
func (a *arrival) flowIn(ctx context.Context, in hbone.Incoming, upstream netip.AddrPort) *rejection {
	if !a.local.Settings.Datagrams {
		return a.reject(hbone.StatusUnavailable, telemetry.FlagConnect, errNotOurs)
	}
	app, no := a.give(ctx, upstream)
	if no != nil {
		return no
	}
	stream, err := in.Accept(a.acceptance())
	if err != nil {
		app.Close()
		return a.reject(hbone.StatusUnavailable, telemetry.FlagConnect, err)
	}
	counted := datagrams.NewCounted(ctx, app, func(error) {})
	record := a.Recorder.Open(a.flow, a.start, counted)
	carried, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if a.Accepting != nil {
		defer context.AfterFunc(a.Accepting, func() { cancel(datagrams.ErrDrained) })()
	}
	tunnel := datagrams.Tunnelled{Stream: stream}
	err = datagrams.Relay(carried, tunnel, counted, a.Idle)
	a.Drops.Add(datagrams.UnreceivedReason, datagrams.Unreceived(tunnel))
	if errors.Is(err, io.EOF) || errors.Is(err, datagrams.ErrIdle) || errors.Is(err, datagrams.ErrDrained) {
		err = nil // as flows of UDP do end
	}
	a.finish(ctx, record, counted, err)
	return nil
}

// give opens what the application is given datagrams by.
func (a *arrival) give(ctx context.Context, upstream netip.AddrPort) (datagrams.Conn, *rejection) {
	ctx, cancel := context.WithTimeout(ctx, a.ConnectTimeout)
	defer cancel()
	app, err := a.Datagrams.Open(ctx, datagrams.Flow{Source: netip.AddrPortFrom(a.request.SourceIP, a.flow.SourceAddr.Port()), Destination: upstream})
	if err != nil {
		return nil, a.reject(hbone.StatusUnavailable, telemetry.FlagConnect, fmt.Errorf("datagrams cannot be given to the application: %w", err))
	}
	return app, nil
}

// PlainDatagrams carries the UDP that comes for the pod in clear.
func (i *Inbound) PlainDatagrams() datagrams.Carrier { return plainFlows{i} }

type plainFlows struct{ in *Inbound }

// Open implements datagrams.Carrier.
func (p plainFlows) Open(ctx context.Context, f datagrams.Flow) (datagrams.Conn, error) {
	a := &arrival{
		Inbound: p.in, start: time.Now(), request: route.InboundRequest{ConnDst: f.Destination, SourceIP: f.Source.Addr(), Datagrams: true},
		flow: telemetry.Flow{
			ID: decision.NewID(), Direction: telemetry.Inbound, Datagrams: true, SourceAddr: f.Source, DestinationAddr: f.Destination,
			TraceParent: telemetry.NewTraceParent(),
		},
	}
	var tracked *connections.Conn
	flow, upstream, no := a.admit(p.in.Cut, &tracked)
	var app datagrams.Conn
	if no == nil {
		app, no = a.give(ctx, upstream)
	}
	if no != nil {
		if tracked != nil {
			tracked.Done()
		}
		a.fail(no)
		return nil, no.err
	}
	var record *telemetry.Connection
	var counted *datagrams.Counted
	counted = datagrams.NewCounted(flow, app, func(err error) {
		a.finish(flow, record, counted, err)
		tracked.Done()
	})
	record = p.in.Recorder.Open(a.flow, a.start, counted)
	return counted, nil
}

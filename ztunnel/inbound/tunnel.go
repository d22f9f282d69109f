package inbound

import (
	"cmp"
	"context"
	"net"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// Tunnel serves one CONNECT; it is an hbone.Handler.
func (i *Inbound) Tunnel(in hbone.Incoming) {
	peer, request := in.Peer(), in.Request()
	udp := request.Protocol == hbone.ProtocolUDP
	a := &arrival{
		Inbound: i, start: time.Now(),
		request: route.InboundRequest{
			Authority: request.Authority, ConnDst: peer.Local, Source: peer.ID, SourceIP: peer.Remote.Addr(),
			Host: forwardedHost(request.Header[hbone.HeaderForwarded]), Datagrams: udp,
		},
		flow: telemetry.Flow{
			Datagrams: udp, ID: decision.Adopt(request.Header[hbone.HeaderDecision]), Direction: telemetry.Inbound, SourceAddr: peer.Remote, SourceID: peer.ID, DestinationAddr: peer.Local,
			HBONEAddr: request.Authority, TraceParent: cmp.Or(request.Header[hbone.HeaderTraceparent], telemetry.NewTraceParent()),
		},
	}
	a.span = i.Tracer.Connect(a.flow.TraceParent, a.start)
	var tracked *connections.Conn
	ctx, upstream, no := a.admit(in.Context(), &tracked)
	if tracked != nil {
		defer tracked.Done()
	}
	if a.local != nil {
		a.flow.DestinationID = a.local.Identity()
	}
	if a.flow.Source == nil {
		a.flow.Source = telemetry.ParseBaggage(request.Header[hbone.HeaderBaggage])
	}
	if no == nil && udp {
		no = a.flowIn(ctx, in, upstream)
		if no == nil {
			return
		}
	}
	var app *net.TCPConn
	if no == nil {
		app, no = a.dial(ctx, upstream)
	}
	if no != nil {
		in.Reject(no.status, no.reason)
		a.fail(no)
		return
	}
	stream, err := in.Accept(a.acceptance())
	if err != nil {
		relay.Reset(app)
		a.fail(a.reject(hbone.StatusUnavailable, telemetry.FlagConnect, err))
		return
	}
	var counts relay.Counts
	record := i.Recorder.Open(a.flow, a.start, &counts)
	a.finish(ctx, record, &counts, relay.Options{HalfOpen: i.HalfOpen}.Run(ctx, stream, app, &counts))
}

// acceptance is what a client is told of whom it reached.
func (a *arrival) acceptance() map[string]string {
	return map[string]string{
		hbone.HeaderBaggage: telemetry.Baggage(a.local),
		hbone.HeaderReason:  a.verdict.String(),
	}
}

// forwardedHost is the hostname that the client's ztunnel says was dialled
// (RFC 7239), for labels only: of several services with one port it tells which.
func forwardedHost(forwarded string) string {
	for part := range strings.SplitSeq(forwarded, ";") {
		if host, ok := strings.CutPrefix(part, "host="); ok {
			return host
		}
	}
	return ""
}

// Plain serves one captured plaintext connection; it is a capture.Handler.
func (i *Inbound) Plain(ctx context.Context, client *net.TCPConn) {
	source := linux.AddrPort(client.RemoteAddr())
	a := &arrival{
		Inbound: i, start: time.Now(),
		flow: telemetry.Flow{ID: decision.NewID(), Direction: telemetry.Inbound, SourceAddr: source, TraceParent: telemetry.NewTraceParent()},
	}
	dst, err := i.OriginalDst(client)
	if err != nil {
		relay.Reset(client)
		a.fail(a.reject(hbone.StatusUnavailable, telemetry.FlagConnect, err))
		return
	}
	a.flow.DestinationAddr = dst
	a.request = route.InboundRequest{ConnDst: dst, SourceIP: source.Addr()}
	var tracked *connections.Conn
	ctx, upstream, no := a.admit(ctx, &tracked)
	if tracked != nil {
		defer tracked.Done()
	}
	var app *net.TCPConn
	if no == nil {
		app, no = a.dial(ctx, upstream)
	}
	if no != nil {
		relay.Reset(client)
		a.fail(no)
		return
	}
	var counts relay.Counts
	record := i.Recorder.Open(a.flow, a.start, &counts)
	a.finish(ctx, record, &counts, relay.Options{HalfOpen: i.HalfOpen}.Run(ctx, client, app, &counts))
}

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
	a := &arrival{
		Inbound: i, start: time.Now(),
		request: route.InboundRequest{
			Authority: request.Authority, ConnDst: peer.Local, Source: peer.ID, SourceIP: peer.Remote.Addr(),
			Host: forwardedHost(request.Header[hbone.HeaderForwarded]),
		},
		flow: telemetry.Flow{
			ID: decision.Adopt(request.Header[hbone.HeaderDecision]), Direction: telemetry.Inbound, SourceAddr: peer.Remote, SourceID: peer.ID, DestinationAddr: peer.Local,
			HBONEAddr: request.Authority, TraceParent: cmp.Or(request.Header[hbone.HeaderTraceparent], telemetry.NewTraceParent()),
		},
	}
	a.span = i.Tracer.Connect(a.flow.TraceParent, a.start)
	var tracked *connections.Conn
	ctx, app, no := a.admit(in.Context(), &tracked)
	if tracked != nil {
		defer tracked.Done()
	}
	if a.local != nil {
		a.flow.DestinationID = a.local.Identity()
	}
	if a.flow.Source == nil {
		a.flow.Source = telemetry.ParseBaggage(request.Header[hbone.HeaderBaggage])
	}
	if no != nil {
		in.Reject(no.status, no.reason)
		a.fail(no)
		return
	}
	stream, err := in.Accept(map[string]string{
		hbone.HeaderBaggage: telemetry.Baggage(a.local),
		hbone.HeaderReason:  a.verdict.String(),
	})
	if err != nil {
		relay.Reset(app)
		a.fail(a.reject(hbone.StatusUnavailable, telemetry.FlagConnect, err))
		return
	}
	var counts relay.Counts
	record := i.Recorder.Open(a.flow, a.start, &counts)
	a.finish(ctx, record, &counts, relay.Options{HalfOpen: i.HalfOpen}.Run(ctx, stream, app, &counts))
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
	ctx, app, no := a.admit(ctx, &tracked)
	if tracked != nil {
		defer tracked.Done()
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

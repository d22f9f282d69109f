package tracing

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// Connection is the span of one tunnelled connection at one of its ends. A nil
// Connection does nothing.
type Connection struct{ span trace.Span }

// Connect begins the span of a connection that began at the given time. At the
// source traceParent is empty: there the trace begins, and whether it is wanted
// is decided for both ends.
func (t *Tracer) Connect(traceParent string, at time.Time) *Connection {
	if t == nil {
		return nil
	}
	ctx, kind := context.Background(), trace.SpanKindClient
	if traceParent != "" {
		kind = trace.SpanKindServer
		c := read(header{keyTraceParent: {traceParent}})
		ctx = context.WithValue(ctx, wishKey{}, c.wish)
		if c.parent.IsValid() {
			ctx = trace.ContextWithRemoteSpanContext(ctx, c.parent)
		}
	}
	_, span := t.tracer.Start(ctx, "connection", trace.WithSpanKind(kind), trace.WithTimestamp(at))
	return &Connection{span}
}

// TraceParent is what the other end is told, empty without a span.
func (c *Connection) TraceParent() string {
	if c == nil {
		return ""
	}
	return traceParent(c.span.SpanContext())
}

// End ends the span with what the connection's record says.
func (c *Connection) End(f *telemetry.Flow, o telemetry.Outcome, received, sent uint64) {
	if c == nil {
		return
	}
	defer c.span.End()
	if !c.span.IsRecording() {
		return
	}
	if f.Service != nil {
		c.span.SetName("connection to " + f.Service.Hostname)
	}
	c.span.SetAttributes(ofFlow(f, o)...)
	c.span.SetAttributes(attribute.Int64("ambit.received", int64(received)), attribute.Int64("ambit.sent", int64(sent)))
	if o.Flag != telemetry.FlagNone || o.Cut != telemetry.CutNone {
		c.span.SetStatus(codes.Error, o.Reason)
	}
	if o.Err != nil {
		c.span.RecordError(o.Err)
	}
}

// ofFlow has OpenTelemetry's names where it has some.
func ofFlow(f *telemetry.Flow, o telemetry.Outcome) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		attribute.String("ambit.decision", f.ID),
		attribute.Int64("ambit.generation", int64(f.Generation)),
		attribute.String("ambit.flag", o.Flag.String()),
		attribute.String("ambit.direction", f.Direction.String()),
		attribute.String("network.transport", "tcp"),
	}
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, attribute.String(key, value))
		}
	}
	if f.SourceAddr.IsValid() {
		text("client.address", f.SourceAddr.Addr().String())
	}
	if f.DestinationAddr.IsValid() {
		text("network.peer.address", f.DestinationAddr.Addr().String())
		attrs = append(attrs, attribute.Int("network.peer.port", int(f.DestinationAddr.Port())))
	}
	text("ambit.source", f.SourceID.String())
	text("ambit.destination", f.DestinationID.String())
	text("ambit.authority", f.HBONEAddr)
	text("ambit.reason", o.Reason)
	text("ambit.cut", o.Cut.String())
	if f.Service != nil {
		text("ambit.service", f.Service.Key().String())
	}
	if f.Destination != nil {
		text("ambit.workload", f.Destination.UID)
	}
	if !o.Policy.IsZero() {
		text("ambit.policy", o.Policy.String())
	}
	return attrs
}

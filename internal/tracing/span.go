package tracing

import (
	"context"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// Span is that of one request. A nil Span does nothing.
type Span struct {
	tracer  *Tracer
	ctx     context.Context
	span    trace.Span
	carried carried
}

// Try is the span of one attempt at a backend. A nil Try does nothing.
type Try struct{ span trace.Span }

// Start begins the span of a request that came at the given time with the
// given headers, which are only read.
func (t *Tracer) Start(headers map[string][]string, at time.Time) *Span {
	if t == nil {
		return nil
	}
	c := read(headers)
	ctx := context.WithValue(context.Background(), wishKey{}, c.wish)
	if c.parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, c.parent)
	}
	ctx, span := t.tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(at))
	return &Span{tracer: t, ctx: ctx, span: span, carried: c}
}

// Try begins an attempt, and writes its context into the headers that go to
// the backend.
func (s *Span) Try(headers map[string][]string) *Try {
	if s == nil {
		return nil
	}
	_, span := s.tracer.tracer.Start(s.ctx, "try", trace.WithSpanKind(trace.SpanKindClient))
	s.carried.write(headers, span.SpanContext(), s.span.SpanContext().SpanID())
	return &Try{span}
}

// TraceParent is the request's own context for its record, empty without a span.
func (s *Span) TraceParent() string {
	if s == nil {
		return ""
	}
	return traceParent(s.span.SpanContext())
}

func traceParent(c trace.SpanContext) string {
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String()
}

// TraceID is the trace's, empty without a span.
func (s *Span) TraceID() string {
	if s == nil {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// End ends the attempt.
func (t *Try) End(a telemetry.Attempt) {
	if t == nil {
		return
	}
	defer t.span.End()
	if !t.span.IsRecording() {
		return
	}
	t.span.SetAttributes(attribute.String("ambit.workload", a.Workload))
	if a.Addr.IsValid() {
		t.span.SetAttributes(attribute.String("network.peer.address", a.Addr.Addr().String()), attribute.Int("network.peer.port", int(a.Addr.Port())))
	}
	if a.Status != 0 {
		t.span.SetAttributes(attribute.Int("http.response.status_code", a.Status))
	}
	switch {
	case a.Err != "":
		t.span.SetStatus(codes.Error, a.Err)
	case a.Status >= 400:
		t.span.SetStatus(codes.Error, "")
	}
}

// End ends the request's span with what its record says.
func (s *Span) End(e *telemetry.Exchange) {
	if s == nil {
		return
	}
	defer s.span.End(trace.WithTimestamp(e.Start.Add(e.Duration)))
	if !s.span.IsRecording() {
		return
	}
	s.span.SetName(name(e))
	s.span.SetAttributes(attributes(e)...)
	if e.Status >= 500 || e.Status == 0 {
		s.span.SetStatus(codes.Error, e.Reason)
	}
	if e.Err != nil {
		s.span.RecordError(e.Err)
	}
}

// name is of few values: a gRPC method or an HTTP method and the service.
func name(e *telemetry.Exchange) string {
	switch {
	case e.Protocol == "grpc":
		return strings.TrimPrefix(path(e), "/")
	case e.Service != nil:
		return e.Method + " " + e.Service.Hostname
	}
	return e.Method
}

func path(e *telemetry.Exchange) string {
	p, _, _ := strings.Cut(e.Path, "?") // a query may hold secrets
	return p
}

// attributes have OpenTelemetry's names where it has some.
func attributes(e *telemetry.Exchange) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		attribute.String("ambit.decision", e.ID),
		attribute.Int64("ambit.generation", int64(e.Generation)),
		attribute.String("ambit.flag", string(e.Flag)),
		attribute.Int("ambit.attempts", len(e.Attempts)),
		attribute.Int64("http.request.body.size", int64(e.RequestBytes)),
		attribute.Int64("http.response.body.size", int64(e.ResponseBytes)),
	}
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, attribute.String(key, value))
		}
	}
	text("http.request.method", e.Method)
	text("server.address", e.Host)
	text("url.path", path(e))
	text("network.protocol.version", strings.TrimPrefix(e.Proto, "HTTP/"))
	text("ambit.source", e.SourceID.String())
	text("ambit.reason", e.Reason)
	if e.SourceAddr.IsValid() {
		text("client.address", e.SourceAddr.Addr().String())
	}
	if e.Service != nil {
		text("ambit.service", e.Service.Key().String())
	}
	if e.Backend.Hostname != "" {
		text("ambit.backend", e.Backend.String()+":"+strconv.Itoa(int(e.BackendPort)))
	}
	if !e.Route.IsZero() {
		text("ambit.route", e.Route.String())
	}
	if !e.Policy.IsZero() {
		text("ambit.policy", e.Policy.String())
	}
	if e.Status != 0 {
		attrs = append(attrs, attribute.Int("http.response.status_code", e.Status))
	}
	if e.Protocol == "grpc" {
		attrs = append(attrs, attribute.String("rpc.system", "grpc"), attribute.Int("rpc.grpc.status_code", e.GRPCStatus))
	}
	return attrs
}

package tracing

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Header keys, in net/http's canonical form.
const (
	keyTraceParent = "Traceparent"
	keyTraceState  = "Tracestate"
	keyB3          = "B3"
	keyB3Trace     = "X-B3-Traceid"
	keyB3Span      = "X-B3-Spanid"
	keyB3Parent    = "X-B3-Parentspanid"
	keyB3Sampled   = "X-B3-Sampled"
	keyB3Flags     = "X-B3-Flags"
)

// header is a header in net/http's form, read and written by canonical keys.
type header map[string][]string

// get joins fields of one name, as RFC 9110 5.3 allows for lists. What is no
// list and comes twice is then not well-formed, as it should be.
func (h header) get(key string) string {
	switch v := h[key]; len(v) {
	case 0:
		return ""
	case 1:
		return v[0]
	default:
		return strings.Join(v, ",")
	}
}

func (h header) set(key, value string) { h[key] = []string{value} }

// Get, Set and Keys implement propagation.TextMapCarrier for W3C's two fields.
func (h header) Get(key string) string {
	if key == "traceparent" {
		return h.get(keyTraceParent)
	}
	return h.get(keyTraceState)
}

func (h header) Set(key, value string) {
	if key == "traceparent" {
		h.set(keyTraceParent, value)
		return
	}
	h.set(keyTraceState, value)
}

func (h header) Keys() []string { return []string{"traceparent", "tracestate"} }

// carried is the trace context of a request.
type carried struct {
	parent trace.SpanContext // invalid if there is none
	wish   wish
	// single and multi are the forms of B3 that the request has; what goes on
	// has them too, so that whoever speaks only B3 stays in the trace.
	single, multi bool
	debug         bool // of B3
}

// read takes W3C's context if there is one, and else B3's.
func read(h header) carried {
	c := carried{single: len(h[keyB3]) > 0, multi: len(h[keyB3Trace]) > 0 || len(h[keyB3Sampled]) > 0 || len(h[keyB3Flags]) > 0}
	ctx := propagation.TraceContext{}.Extract(context.Background(), h)
	if parent := trace.SpanContextFromContext(ctx); parent.IsValid() {
		c.parent, c.wish = parent, unwanted
		if parent.IsSampled() {
			c.wish = wanted
		}
		return c
	}
	if c.single {
		c.readSingle(h.get(keyB3))
	} else if c.multi {
		c.readMulti(h)
	}
	return c
}

// readSingle reads "trace-span-state-parent", of which the last two may be
// missing, or the state alone.
func (c *carried) readSingle(text string) {
	parts := strings.Split(text, "-")
	if len(parts) == 1 {
		c.readState(parts[0])
		return
	}
	if len(parts) > 4 || !c.readIDs(parts[0], parts[1]) {
		return
	}
	if len(parts) > 2 {
		c.readState(parts[2])
	}
}

func (c *carried) readMulti(h header) {
	if h.get(keyB3Flags) == "1" {
		c.readState("d")
	} else {
		c.readState(h.get(keyB3Sampled))
	}
	if len(h[keyB3Trace]) > 0 {
		c.readIDs(h.get(keyB3Trace), h.get(keyB3Span))
	}
}

func (c *carried) readState(state string) {
	switch state {
	case "1", "true":
		c.wish = wanted
	case "0", "false":
		c.wish = unwanted
	case "d":
		c.wish, c.debug = wanted, true
	}
}

func (c *carried) readIDs(traceID, spanID string) bool {
	if len(traceID) == 16 {
		traceID = "0000000000000000" + traceID // an old trace id has 64 bits
	}
	t, err := trace.TraceIDFromHex(traceID)
	if err != nil {
		return false
	}
	s, err := trace.SpanIDFromHex(spanID)
	if err != nil {
		return false
	}
	c.parent = trace.NewSpanContext(trace.SpanContextConfig{TraceID: t, SpanID: s, Remote: true})
	return true
}

// write puts the context of a span, whose parent is known, into a header.
func (c *carried) write(h header, span trace.SpanContext, parent trace.SpanID) {
	delete(h, keyTraceState)
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), span), h)
	state := "0"
	if span.IsSampled() {
		state = "1"
	}
	if c.single {
		if c.debug {
			state = "d"
		}
		h.set(keyB3, span.TraceID().String()+"-"+span.SpanID().String()+"-"+state+"-"+parent.String())
	}
	if !c.multi {
		return
	}
	h.set(keyB3Trace, span.TraceID().String())
	h.set(keyB3Span, span.SpanID().String())
	h.set(keyB3Parent, parent.String())
	if c.debug {
		return // the flags, which go on as they came, say it
	}
	h.set(keyB3Sampled, state)
}

// TraceParent is the well-formed traceparent of a request, for its record when
// tracing is off; empty if it has none.
func TraceParent(h map[string][]string) string {
	v := h[keyTraceParent]
	if len(v) != 1 || len(v[0]) != 55 {
		return ""
	}
	if c := read(header{keyTraceParent: v}); !c.parent.IsValid() {
		return ""
	}
	return v[0]
}

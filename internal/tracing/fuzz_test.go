package tracing

import (
	"testing"

	"go.opentelemetry.io/otel/trace"
)

// FuzzCarried: whatever a request carries, what is read of it is a context or
// none, and what goes on can be read by the next.
func FuzzCarried(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=b,c=d", "", "")
	f.Add("", "", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90", "")
	f.Add("", "", "d", "80f198ee56343ba8")
	f.Fuzz(func(t *testing.T, parent, state, single, multi string) {
		h := header{keyTraceParent: {parent}, keyTraceState: {state}}
		if single != "" {
			h[keyB3] = []string{single}
		}
		if multi != "" {
			h[keyB3Trace], h[keyB3Span] = []string{multi}, []string{multi}
		}
		if p := TraceParent(h); p != "" && p != parent {
			t.Errorf("%q is told as %q", parent, p)
		}
		c := read(h)
		span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
		c.write(h, span, c.parent.SpanID())
		if next := read(h); next.parent.TraceID() != span.TraceID() || next.parent.SpanID() != span.SpanID() {
			t.Errorf("the next reads %v", next.parent)
		}
	})
}

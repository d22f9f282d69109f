package inpod_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/ambit-mesh/ambit/internal/tracing"
)

// receiver is a collector that keeps what it is sent.
type receiver struct {
	collector.UnimplementedTraceServiceServer

	mu    sync.Mutex
	spans []*otlp.Span
}

func (r *receiver) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			r.spans = append(r.spans, ss.Spans...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func attribute(s *otlp.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// TestATunnelledConnectionIsASpanAtEachEnd, of one trace; what goes in clear is
// none.
func TestATunnelledConnectionIsASpanAtEachEnd(t *testing.T) {
	needsRoot(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, g := &receiver{}, grpc.NewServer()
	collector.RegisterTraceServiceServer(g, r)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	w := bare(t, "one", "two")
	w.spans = tracing.Config{Endpoint: "http://" + l.Addr().String(), Sample: 1}
	w.boot()
	client := w.newPod(w.nodes[0], "client").enrolled()
	server := w.newPod(w.nodes[1], "server").enrolled()
	plain := w.newPod(w.nodes[1], "plain")
	server.echo(8080)
	plain.echo(8080)
	for _, p := range []*pod{server, plain} {
		if _, err := client.call(p.at(8080)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range w.nodes {
		n.ztunnels[0].end(t) // which sends what is left
	}
	eventually(t, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.spans) != 2 {
			return fmt.Errorf("%d spans, want one at each end", len(r.spans))
		}
		return nil
	})
	out, in := r.spans[0], r.spans[1]
	if out.Kind != otlp.Span_SPAN_KIND_CLIENT {
		out, in = in, out
	}
	if !bytes.Equal(out.TraceId, in.TraceId) || !bytes.Equal(out.SpanId, in.ParentSpanId) || attribute(out, "ambit.decision") != attribute(in, "ambit.decision") {
		t.Errorf("the ends do not belong together: %v, %v", out, in)
	}
	if attribute(in, "ambit.source") != client.identity().String() || attribute(out, "ambit.destination") != server.identity().String() {
		t.Errorf("identities of %v, %v", out, in)
	}
}

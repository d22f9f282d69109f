package tracing

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

func flow(d telemetry.Direction) *telemetry.Flow {
	return &telemetry.Flow{
		ID: "abcdefgh", Direction: d, Generation: 7, HBONEAddr: "10.1.0.6:8080", DestinationAddr: netip.MustParseAddrPort("10.1.0.6:15008"),
		Service: &mesh.Service{Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local"},
	}
}

func TestBothEndsOfAConnectionAreSpansOfOneTrace(t *testing.T) {
	r, url := serve(t)
	source, destination := tracer(t, url, 1), tracer(t, url, 0) // who is asked does as the asker says
	out := source.Connect("", time.Now())
	in := destination.Connect(out.TraceParent(), time.Now())
	in.End(flow(telemetry.Inbound), telemetry.Outcome{}, 5, 6)
	out.End(flow(telemetry.Outbound), telemetry.Outcome{Cut: telemetry.CutDrain, Err: errors.New("cut")}, 5, 6)
	for _, tr := range []*Tracer{source, destination} {
		if err := tr.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.spans) != 2 {
		t.Fatalf("%d spans", len(r.spans))
	}
	client, server := r.spans[0], r.spans[1]
	if server.Kind != otlp.Span_SPAN_KIND_SERVER {
		client, server = server, client
	}
	if string(client.TraceId) != string(server.TraceId) || string(server.ParentSpanId) != string(client.SpanId) || len(client.ParentSpanId) > 0 {
		t.Errorf("spans are not of one trace: %v, %v", client, server)
	}
	attrs := texts(client.Attributes)
	if attrs["ambit.decision"] != "abcdefgh" || attrs["ambit.cut"] != "drain" || attrs["ambit.service"] != "shop/web.shop.svc.cluster.local" || client.Status.Code != otlp.Status_STATUS_CODE_ERROR {
		t.Errorf("%v, status %v", attrs, client.Status)
	}
}

func TestAConnectionThatTheSourceDoesNotTraceIsNotTraced(t *testing.T) {
	r, url := serve(t)
	tr := tracer(t, url, 1)
	tr.Connect("00-"+traceID+"-"+spanID+"-00", time.Now()).End(flow(telemetry.Inbound), telemetry.Outcome{}, 0, 0)
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.spans) != 0 {
		t.Errorf("%d spans", len(r.spans))
	}
}

func TestWithoutATracerConnectionsHaveNoSpan(t *testing.T) {
	var tr *Tracer
	c := tr.Connect("", time.Now())
	if c.TraceParent() != "" {
		t.Errorf("context %q", c.TraceParent())
	}
	c.End(flow(telemetry.Outbound), telemetry.Outcome{}, 0, 0)
}

package tracing

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
)

// receiver is a collector that keeps what it is sent.
type receiver struct {
	collector.UnimplementedTraceServiceServer

	mu       sync.Mutex
	spans    []*otlp.Span
	resource map[string]string
}

func (r *receiver) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		r.resource = texts(rs.Resource.Attributes)
		for _, ss := range rs.ScopeSpans {
			r.spans = append(r.spans, ss.Spans...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// ServeHTTP is the same over HTTP.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var m collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(body, &m) != nil || req.URL.Path != "/v1/traces" {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	_, _ = r.Export(req.Context(), &m)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func texts(attrs []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range attrs {
		if s, ok := a.Value.Value.(*common.AnyValue_StringValue); ok {
			out[a.Key] = s.StringValue
		}
	}
	return out
}

// serve runs a collector that speaks gRPC and gives its URL.
func serve(t *testing.T) (*receiver, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, g := &receiver{}, grpc.NewServer()
	collector.RegisterTraceServiceServer(g, r)
	served := make(chan struct{})
	go func() { defer close(served); g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-served })
	return r, "http://" + l.Addr().String()
}

// tracer traces to url until the end of the test.
func tracer(t *testing.T, url string, sample float64) *Tracer {
	t.Helper()
	tr, err := New(t.Context(), Config{Endpoint: url, Sample: sample, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func exchange() *telemetry.Exchange {
	return &telemetry.Exchange{
		ID: "abcdefgh", Start: time.Now(), Generation: 7, Service: &mesh.Service{Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local"},
		Protocol: "http", Proto: "HTTP/2.0", Method: "GET", Host: "web", Path: "/cart?token=secret", Status: 503, GRPCStatus: -1, Flag: telemetry.ExchangeRetriesSpent,
		Reason: "every try failed", Err: errors.New("connection refused"), SourceAddr: netip.MustParseAddrPort("10.1.0.5:4000"), Duration: 3 * time.Millisecond,
		Route: mesh.RouteKey{Kind: mesh.RouteHTTP, Namespace: "shop", Name: "web"},
	}
}

func TestARequestAndItsTriesAreSpansOfOneTrace(t *testing.T) {
	for _, overHTTP := range []bool{false, true} {
		r, url := serve(t)
		if overHTTP {
			s := httptest.NewServer(r)
			t.Cleanup(s.Close)
			url = s.URL + "/v1/traces"
		}
		tr, err := New(t.Context(), Config{Endpoint: url, HTTP: overHTTP, Service: "waypoint", Namespace: "shop", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		e := exchange()
		in := map[string][]string{"Traceparent": {"00-" + traceID + "-" + spanID + "-01"}, "Tracestate": {"a=1", "b=2"}}
		s := tr.Start(in, e.Start)
		if s.TraceID() != traceID || !strings.HasPrefix(s.TraceParent(), "00-"+traceID+"-") || strings.Contains(s.TraceParent(), spanID) {
			t.Errorf("the span's context is %q", s.TraceParent())
		}
		for range 2 {
			out := maps.Clone(in)
			a := s.Try(out)
			if got := out["Tracestate"]; len(got) != 1 || got[0] != "a=1,b=2" {
				t.Errorf("the trace state went on as %q", got)
			}
			a.End(telemetry.Attempt{Workload: "k//Pod/shop/web-1", Addr: netip.MustParseAddrPort("10.1.0.6:80"), Err: "connection refused"})
		}
		s.End(e)
		if err := tr.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(r.spans) != 3 || r.resource["service.name"] != "waypoint" || r.resource["k8s.namespace.name"] != "shop" {
			t.Fatalf("received %d spans of %v", len(r.spans), r.resource)
		}
		server := r.spans[2]
		if got := texts(server.Attributes); server.Name != "GET web.shop.svc.cluster.local" || server.Kind != otlp.Span_SPAN_KIND_SERVER || hex(server.TraceId) != traceID || hex(server.ParentSpanId) != spanID ||
			got["url.path"] != "/cart" || got["ambit.decision"] != "abcdefgh" || got["ambit.route"] != "HTTPRoute/shop/web" || got["ambit.flag"] != "URX" || server.Status.GetCode() != otlp.Status_STATUS_CODE_ERROR {
			t.Errorf("the request's span is %v", server)
		}
		if d := time.Duration(server.EndTimeUnixNano - server.StartTimeUnixNano); d != e.Duration {
			t.Errorf("the request's span lasts %s, want %s", d, e.Duration)
		}
		for _, try := range r.spans[:2] {
			if try.Kind != otlp.Span_SPAN_KIND_CLIENT || !bytes.Equal(try.ParentSpanId, server.SpanId) || try.Status.GetCode() != otlp.Status_STATUS_CODE_ERROR || try.Status.GetMessage() != "connection refused" {
				t.Errorf("a try's span is %v", try)
			}
		}
	}
}

const digits = "0123456789abcdef"

func hex(b []byte) string {
	var out strings.Builder
	for _, c := range b {
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

func TestContextsOfEveryKindAreFollowedAndGoOn(t *testing.T) {
	long := map[string][]string{"X-B3-Traceid": {traceID}, "X-B3-Spanid": {spanID}, "X-B3-Parentspanid": {"00f067aa0ba902b7"}}
	with := func(key, value string) map[string][]string {
		h := maps.Clone(long)
		h[key] = []string{value}
		return h
	}
	_, url := serve(t)
	for _, tt := range []struct {
		sentence string
		in       map[string][]string
		sample   float64
		follows  string // the trace id, empty for a new one
		sampled  bool
		// b3 and multi are the state that goes on in either form, empty for none.
		b3, multi string
	}{
		{"nothing, and nobody is sampled", nil, 0, "", false, "", ""},
		{"nothing, and everybody is sampled", nil, 1, "", true, "", ""},
		{"W3C that is sampled", map[string][]string{"Traceparent": {"00-" + traceID + "-" + spanID + "-01"}}, 0, traceID, true, "", ""},
		{"W3C that is not sampled", map[string][]string{"Traceparent": {"00-" + traceID + "-" + spanID + "-00"}}, 1, traceID, false, "", ""},
		{"W3C of a later version", map[string][]string{"Traceparent": {"01-" + traceID + "-" + spanID + "-01-x"}}, 0, traceID, true, "", ""},
		{"W3C twice is none", map[string][]string{"Traceparent": {"00-" + traceID + "-" + spanID + "-01", "00-" + traceID + "-" + spanID + "-01"}}, 0, "", false, "", ""},
		{"W3C that is broken", map[string][]string{"Traceparent": {"00-" + traceID + "-xyz-01"}}, 0, "", false, "", ""},
		{"one B3 field", map[string][]string{"B3": {traceID + "-" + spanID + "-1-00f067aa0ba902b7"}}, 0, traceID, true, "1", ""},
		{"one B3 field without a state leaves it to us", map[string][]string{"B3": {traceID + "-" + spanID}}, 1, traceID, true, "1", ""},
		{"one B3 field that says no", map[string][]string{"B3": {"0"}}, 1, "", false, "0", ""},
		{"one B3 field that says debug", map[string][]string{"B3": {traceID + "-" + spanID + "-d"}}, 0, traceID, true, "d", ""},
		{"one B3 field with a short trace id", map[string][]string{"B3": {"8448eb211c80319c-" + spanID + "-1"}}, 0, "00000000000000008448eb211c80319c", true, "1", ""},
		{"one B3 field that is broken", map[string][]string{"B3": {traceID + "-" + spanID + "-1-2-3"}}, 0, "", false, "0", ""},
		{"B3 fields that are sampled", with("X-B3-Sampled", "1"), 0, traceID, true, "", "1"},
		{"B3 fields that are not sampled", with("X-B3-Sampled", "0"), 1, traceID, false, "", "0"},
		{"B3 fields of old", with("X-B3-Sampled", "true"), 0, traceID, true, "", "1"},
		{"B3 fields without a state leave it to us", long, 0, traceID, false, "", "0"},
		{"B3 fields that say debug", with("X-B3-Flags", "1"), 0, traceID, true, "", "debug"},
		{"B3 beside W3C follows W3C, in both forms", map[string][]string{
			"Traceparent": {"00-" + traceID + "-" + spanID + "-01"}, "B3": {"0af7651916cd43dd8448eb211c80319d-" + spanID + "-0"},
		}, 0, traceID, true, "1", ""},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			tr := tracer(t, url, tt.sample)
			s := tr.Start(tt.in, time.Now())
			out := maps.Clone(tt.in)
			if out == nil {
				out = map[string][]string{}
			}
			s.Try(out).End(telemetry.Attempt{})
			request := strings.Split(s.TraceParent(), "-")
			goesOn := strings.Split(strings.Join(out["Traceparent"], " and "), "-")
			if len(goesOn) != 4 || goesOn[1] != request[1] || goesOn[2] == request[2] || goesOn[2] == spanID {
				t.Fatalf("the request has %q, its try %q", request, goesOn)
			}
			if tt.follows != "" && request[1] != tt.follows || tt.follows == "" && strings.Contains(request[1], traceID) {
				t.Errorf("trace %s, want %q", request[1], tt.follows)
			}
			if sampled := goesOn[3] == "01" || goesOn[3] == "03"; sampled != tt.sampled {
				t.Errorf("goes on with flags %s, want sampled %v", goesOn[3], tt.sampled)
			}
			wantB3 := ""
			if tt.b3 != "" {
				wantB3 = goesOn[1] + "-" + goesOn[2] + "-" + tt.b3 + "-" + request[2]
			}
			if got := strings.Join(out["B3"], " and "); got != wantB3 {
				t.Errorf("B3 goes on as %q, want %q", got, wantB3)
			}
			multi := map[string]string{}
			for k, v := range out {
				if strings.HasPrefix(k, "X-B3-") {
					multi[k] = strings.Join(v, " and ")
				}
			}
			wantMulti := map[string]string{}
			if tt.multi != "" {
				wantMulti = map[string]string{"X-B3-Traceid": goesOn[1], "X-B3-Spanid": goesOn[2], "X-B3-Parentspanid": request[2], "X-B3-Sampled": tt.multi}
			}
			if tt.multi == "debug" {
				delete(wantMulti, "X-B3-Sampled")
				wantMulti["X-B3-Flags"] = "1"
			}
			if d := cmp.Diff(wantMulti, multi); d != "" {
				t.Errorf("the B3 fields that go on (-want +got):\n%s", d)
			}
		})
	}
}

func TestSwitchedOffItTouchesNothingAndCostsNothing(t *testing.T) {
	tr, err := New(t.Context(), Config{})
	if tr != nil || err != nil {
		t.Fatalf("tracer %v, %v", tr, err)
	}
	in := map[string][]string{"Traceparent": {"00-" + traceID + "-" + spanID + "-01"}, "B3": {"0"}}
	out, e := maps.Clone(in), exchange()
	allocs := testing.AllocsPerRun(100, func() {
		s := tr.Start(out, e.Start)
		s.Try(out).End(telemetry.Attempt{})
		s.End(e)
	})
	if d := cmp.Diff(in, out); d != "" || allocs != 0 {
		t.Errorf("%v allocations, headers changed (-want +got):\n%s", allocs, d)
	}
	if s := tr.Start(out, e.Start); s.TraceParent() != "" || s.TraceID() != "" {
		t.Error("no tracer made a context")
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestARecordGetsOnlyAWellFormedTraceParent(t *testing.T) {
	good := "00-" + traceID + "-" + spanID + "-00"
	for _, tt := range []struct {
		in   []string
		want string
	}{
		{[]string{good}, good}, {nil, ""}, {[]string{good, good}, ""}, {[]string{strings.ToUpper(good)}, ""}, {[]string{good + "-more"}, ""},
		{[]string{"00-" + traceID + "-" + spanID + "\n00"}, ""}, {[]string{"00-" + strings.Repeat("0", 32) + "-" + spanID + "-00"}, ""},
	} {
		if got := TraceParent(map[string][]string{"Traceparent": tt.in}); got != tt.want {
			t.Errorf("%q gives %q, want %q", tt.in, got, tt.want)
		}
	}
}

// flaky refuses the first three batches.
type flaky struct {
	sdk.SpanExporter
	calls int
}

func (f *flaky) ExportSpans(context.Context, []sdk.ReadOnlySpan) error {
	if f.calls++; f.calls <= 3 {
		return errors.New("unavailable")
	}
	return nil
}

func TestACollectorThatIsAwayIsToldOfOnce(t *testing.T) {
	var out bytes.Buffer
	s := &spoken{SpanExporter: &flaky{}, log: slog.New(slog.NewTextHandler(&out, nil)), endpoint: "http://c"}
	for range 6 { // fails three times, then takes them
		if err := s.ExportSpans(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
	if text := out.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "dropped") || !strings.Contains(text, "again") {
		t.Errorf("said %q", text)
	}
}

func TestConfigsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		config Config
		says   string
	}{
		{Config{Endpoint: "collector:4317"}, "want the collector's URL"},
		{Config{Endpoint: "ftp://collector"}, "want the collector's URL"},
		{Config{Endpoint: "http://collector:4317", Sample: 1.5}, "want 0 to 1"},
		{Config{Endpoint: "http://collector:4317", Sample: -1}, "want 0 to 1"},
	} {
		if _, err := New(t.Context(), tt.config); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%+v: error %v, want %q", tt.config, err, tt.says)
		}
	}
}

package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// request is a plain GET from client to server that went well.
func request() *Exchange {
	return &Exchange{
		ID: "abcdefgh", Start: time.Now(), Generation: 7, Source: client, SourceID: clientID, SourceAddr: netip.MustParseAddrPort("10.1.0.5:4000"),
		Service: service, Port: 80, Destination: server, DestinationID: serverID, DestinationAddr: netip.MustParseAddrPort("10.1.0.6:15008"),
		Protocol: "http", Proto: "HTTP/1.1", Method: "GET", Host: "web", Path: "/cart?token=secret", Status: 200, GRPCStatus: -1, Flag: ExchangeOK,
		RequestBytes: 3, ResponseBytes: 700, Duration: 12 * time.Millisecond, Rule: -1,
	}
}

func exchanges(w io.Writer) *Exchanges {
	return NewExchanges(ExchangesConfig{}, slog.New(slog.NewJSONHandler(w, nil)))
}

// families are what a scrape gives, by name.
func families(t *testing.T, c prometheus.Collector) map[string][]*dto.Metric {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]*dto.Metric{}
	for _, f := range all {
		out[f.GetName()] = f.GetMetric()
	}
	return out
}

func TestARequestIsCountedUnderIstiosNamesAndLabels(t *testing.T) {
	x := exchanges(io.Discard)
	x.Record(request())
	x.Record(request())
	got := families(t, x)
	labels := map[string]string{}
	for _, l := range got["istio_requests_total"][0].GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	want := map[string]string{
		"reporter": "waypoint", "request_protocol": "http", "response_code": "200", "grpc_response_status": "", "response_flags": "-", "connection_security_policy": "mutual_tls",
		"source_workload": "client", "source_canonical_service": "client", "source_canonical_revision": "v1", "source_workload_namespace": "shop",
		"source_principal": "spiffe://cluster.local/ns/shop/sa/client", "source_app": "client", "source_version": "v1", "source_cluster": "Kubernetes",
		"destination_service": "web.shop.svc.cluster.local", "destination_service_namespace": "shop", "destination_service_name": "web",
		"destination_workload": "web", "destination_canonical_service": "web", "destination_canonical_revision": "unknown", "destination_workload_namespace": "shop",
		"destination_principal": "spiffe://cluster.local/ns/shop/sa/web", "destination_app": "web", "destination_version": "unknown", "destination_cluster": "Kubernetes",
	}
	if d := cmp.Diff(want, labels); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}
	if n := got["istio_requests_total"][0].GetCounter().GetValue(); n != 2 {
		t.Errorf("%v requests, want 2", n)
	}
	for name, want := range map[string]struct{ sum, bucket float64 }{
		"istio_request_duration_milliseconds": {24, 25}, "istio_request_bytes": {6, 5}, "istio_response_bytes": {1400, 1000},
	} {
		h := got[name][0].GetHistogram()
		first := 0.0
		for _, b := range h.GetBucket() {
			if b.GetCumulativeCount() == 2 {
				first = b.GetUpperBound()
				break
			}
		}
		if h.GetSampleCount() != 2 || h.GetSampleSum() != want.sum || first != want.bucket {
			t.Errorf("%s: %d values, sum %v, all at most %v; want 2, %v, %v", name, h.GetSampleCount(), h.GetSampleSum(), first, want.sum, want.bucket)
		}
	}
	if got["istio_request_messages_total"] != nil {
		t.Error("messages are counted of what is not gRPC")
	}
}

func TestResultsTellSeriesApart(t *testing.T) {
	for _, tt := range []struct {
		sentence string
		change   func(*Exchange)
		want     string // protocol, code, grpc status, flag, security
	}{
		{"gRPC has its own status", func(e *Exchange) { e.Protocol, e.GRPCStatus = "grpc", 5 }, "grpc 200 5 - mutual_tls"},
		{"a status that gRPC does not know is unknown", func(e *Exchange) { e.Protocol, e.GRPCStatus = "grpc", 4711 }, "grpc 200 2 - mutual_tls"},
		{"gRPC that ended without a status is unknown", func(e *Exchange) { e.Protocol, e.GRPCStatus = "grpc", -1 }, "grpc 200 2 - mutual_tls"},
		{"a denial has its flag", func(e *Exchange) { e.Status, e.Flag = 403, ExchangeDenied }, "http 403  DENY mutual_tls"},
		{"no answer is code 0", func(e *Exchange) { e.Status, e.Flag = 0, ExchangeClientEnded }, "http 0  DC mutual_tls"},
		{"a code that HTTP does not have is 0", func(e *Exchange) { e.Status = 7000 }, "http 0  - mutual_tls"},
		{"a client without an identity", func(e *Exchange) {
			e.SourceID.TrustDomain, e.SourceID.Namespace, e.SourceID.ServiceAccount = "", "", ""
		}, "http 200  - unknown"},
		{"nothing known but the start", func(e *Exchange) { *e = Exchange{Start: e.Start} }, "http 0  - unknown"},
	} {
		x := exchanges(io.Discard)
		e := request()
		tt.change(e)
		x.Record(e)
		label := map[string]string{}
		for _, l := range families(t, x)["istio_requests_total"][0].GetLabel() {
			label[l.GetName()] = l.GetValue()
		}
		got := fmt.Sprintf("%s %s %s %s %s", label["request_protocol"], label["response_code"], label["grpc_response_status"], label["response_flags"], label["connection_security_policy"])
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.sentence, got, tt.want)
		}
	}
}

func TestGRPCMessagesAreCounted(t *testing.T) {
	x := exchanges(io.Discard)
	e := request()
	e.Protocol, e.GRPCStatus, e.RequestMessages, e.ResponseMessages = "grpc", 0, 3, 5
	x.Record(e)
	got := families(t, x)
	if in, out := got["istio_request_messages_total"][0].GetCounter().GetValue(), got["istio_response_messages_total"][0].GetCounter().GetValue(); in != 3 || out != 5 {
		t.Errorf("%v and %v messages, want 3 and 5", in, out)
	}
}

func TestRequestSeriesExpireAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := NewExchanges(ExchangesConfig{Expiry: time.Hour, MaxSeries: 10}, slog.New(slog.DiscardHandler))
		steady := request()
		for i := range 100 {
			e := request()
			e.Source = &mesh.Workload{OwnerName: fmt.Sprint(i)}
			x.Record(e)
			steady.Start = time.Now()
			x.Record(steady)
			time.Sleep(time.Second)
		}
		if len(x.series) > 10 || len(x.quick) > 20 {
			t.Errorf("%d series and %d ways to them held, want at most 10 and 20", len(x.series), len(x.quick))
		}
		total := 0.0
		for _, m := range families(t, x)["istio_requests_total"] {
			total = max(total, m.GetCounter().GetValue())
		}
		if total != 100 {
			t.Errorf("the series in use has %v requests, want all 100: only idle ones may go", total)
		}
		time.Sleep(2 * time.Hour)
		if n := len(families(t, x)); n != 0 || len(x.quick) != 0 {
			t.Errorf("%d families and %d ways to them left, want none", n, len(x.quick))
		}
		steady.Start = time.Now()
		x.Record(steady)
		if n := families(t, x)["istio_requests_total"][0].GetCounter().GetValue(); n != 1 {
			t.Errorf("after the expiry %v requests, want 1", n)
		}
	})
}

func TestEqualLabelsAreOneSeriesWhateverTheValues(t *testing.T) {
	x := exchanges(io.Discard)
	x.Record(request())
	e := request()
	again := *client // a peer's baggage is parsed anew for each connection
	e.Source = &again
	x.Record(e)
	if m := families(t, x)["istio_requests_total"]; len(m) != 1 || m[0].GetCounter().GetValue() != 2 {
		t.Errorf("want one series of 2 requests, got %v", m)
	}
}

func TestAScrapeOfRequestsMayComeAtAnyTime(t *testing.T) {
	x := NewExchanges(ExchangesConfig{}, slog.New(slog.DiscardHandler))
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for range 200 {
				x.Record(request())
				x.copies(time.Now())
			}
		})
	}
	work.Wait()
	if n := families(t, x)["istio_requests_total"][0].GetCounter().GetValue(); n != 800 {
		t.Errorf("%v requests, want 800", n)
	}
}

func TestOneRecordARequest(t *testing.T) {
	for _, tt := range []struct {
		sentence string
		change   func(*Exchange)
		want     map[string]any
	}{
		{"what went well", func(*Exchange) {}, map[string]any{
			"level": "INFO", "flag": "-", "status": 200.0, "dst.addr": "10.1.0.6:15008", "dst.workload": "web-1", "dst.namespace": "shop",
			"dst.identity": serverID.String(), "dst.cluster": "Kubernetes", "bytes_sent": 700.0, "attempts": 0.0,
		}},
		{"what was routed and tried twice", func(e *Exchange) {
			e.Route, e.Rule, e.Backend, e.BackendPort = mesh.RouteKey{Kind: mesh.RouteHTTP, Namespace: "shop", Name: "web"}, 2, mesh.ServiceKey{Namespace: "shop", Hostname: "web-v2.shop.svc.cluster.local"}, 8080
			e.Attempts, e.TraceParent = make([]Attempt, 2), "00-0102-03-01"
		}, map[string]any{
			"level": "INFO", "flag": "-", "status": 200.0, "dst.addr": "10.1.0.6:15008", "dst.workload": "web-1", "dst.namespace": "shop",
			"dst.identity": serverID.String(), "dst.cluster": "Kubernetes", "bytes_sent": 700.0, "attempts": 2.0,
			"route": "HTTPRoute/shop/web", "rule": "2", "backend": "shop/web-v2.shop.svc.cluster.local:8080", "trace": "00-0102-03-01",
		}},
		{"what a policy denied", func(e *Exchange) {
			e.Destination, e.DestinationID.TrustDomain, e.DestinationID.Namespace, e.DestinationID.ServiceAccount, e.DestinationAddr = nil, "", "", "", netip.AddrPort{}
			e.Status, e.Flag, e.ResponseBytes = 403, ExchangeDenied, 0
			e.Policy, e.Reason, e.Err = mesh.PolicyKey{Namespace: "shop", Name: "readers"}, "denied: no ALLOW policy matches", errors.New("denied")
		}, map[string]any{
			"level": "ERROR", "flag": "DENY", "status": 403.0, "bytes_sent": 0.0, "attempts": 0.0,
			"policy": "shop/readers", "reason": "denied: no ALLOW policy matches", "error": "denied",
		}},
	} {
		var out bytes.Buffer
		e := request()
		tt.change(e)
		exchanges(&out).Record(e)
		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v in %q", tt.sentence, err, out.String())
		}
		delete(got, "time")
		for key, value := range map[string]any{
			"msg": "request complete", "component": "access", "id": "abcdefgh", "generation": 7.0, "method": "GET", "host": "web", "path": "/cart", "proto": "HTTP/1.1",
			"src.addr": "10.1.0.5:4000", "src.workload": "client-1", "src.namespace": "shop", "src.identity": clientID.String(), "src.cluster": "Kubernetes",
			"dst.service": "web.shop.svc.cluster.local", "bytes_recv": 3.0, "duration": "12ms",
		} {
			tt.want[key] = value
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
	}
}

func TestAWaypointCountsConnectionsToo(t *testing.T) {
	traffic := NewTraffic(TrafficConfig{Reporters: []Direction{Waypoint}})
	var out bytes.Buffer
	r := NewRecorder(traffic, slog.New(slog.NewJSONHandler(&out, nil)))
	r.Open(Flow{Direction: Waypoint, Source: client, ID: "abcdefgh", Generation: 7}, time.Now(), &bytesMoved{up: 1, down: 2}).Close(Outcome{})
	got := gather(t, traffic, "reporter")
	want := map[string]float64{
		"connections_opened_total{waypoint}": 1, "connections_closed_total{waypoint}": 1, "received_bytes_total{waypoint}": 1, "sent_bytes_total{waypoint}": 2, "sockets_open{waypoint}": 0,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("metrics (-want +got):\n%s", d)
	}
	var record map[string]any
	if err := json.Unmarshal(out.Bytes(), &record); err != nil {
		t.Fatal(err)
	}
	if record["id"] != "abcdefgh" || record["generation"] != 7.0 || record["bytes_sent"] != 2.0 || record["direction"] != "waypoint" {
		t.Errorf("record %v", record)
	}
}

func BenchmarkCountARequest(b *testing.B) {
	x := exchanges(io.Discard)
	e := request()
	b.ReportAllocs()
	for b.Loop() {
		x.count(e)
	}
}

func BenchmarkRecordARequest(b *testing.B) {
	x := exchanges(io.Discard)
	e := request()
	b.ReportAllocs()
	for b.Loop() {
		x.Record(e)
	}
}

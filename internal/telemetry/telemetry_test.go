package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

var (
	client = &mesh.Workload{
		UID: "k//Pod/shop/client-1", Name: "client-1", Namespace: "shop", OwnerName: "client", CanonicalName: "client",
		CanonicalRevision: "v1", ClusterID: "Kubernetes", Locality: mesh.Locality{Region: "r", Zone: "z1"},
	}
	server = &mesh.Workload{
		UID: "k//Pod/shop/web-1", Name: "web-1", Namespace: "shop", OwnerName: "web", CanonicalName: "web", ClusterID: "Kubernetes",
	}
	service  = &mesh.Service{Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local"}
	clientID = spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "client"}
	serverID = spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"}
)

// bytesMoved is a Counter that tests move.
type bytesMoved struct{ up, down uint64 }

func (b *bytesMoved) Load() (uint64, uint64) { return b.up, b.down }

// gather gives the samples of the families with a prefix, as "name{labels}" to
// value, with only the labels that are asked for.
func gather(t *testing.T, c prometheus.Collector, labels ...string) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var shown []string
			for _, l := range m.GetLabel() {
				for _, want := range labels {
					if l.GetName() == want {
						shown = append(shown, l.GetValue())
					}
				}
			}
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			out[fmt.Sprintf("%s{%s}", strings.TrimPrefix(f.GetName(), "istio_tcp_"), strings.Join(shown, ","))] += v
		}
	}
	return out
}

func recorder(w io.Writer) (*Traffic, *Recorder) {
	traffic := NewTraffic(TrafficConfig{})
	return traffic, NewRecorder(traffic, slog.New(slog.NewJSONHandler(w, nil)))
}

func TestAConnectionIsCountedFromItsOpeningToItsEnd(t *testing.T) {
	traffic, r := recorder(io.Discard)
	moved := &bytesMoved{}
	c := r.Open(Flow{Direction: Outbound, Source: client, Destination: server, Service: service, SourceID: clientID, DestinationID: serverID}, time.Now(), moved)
	moved.up, moved.down = 100, 7
	want := map[string]float64{
		"connections_opened_total{source,-}": 1, "received_bytes_total{source,-}": 100, "sent_bytes_total{source,-}": 7,
		"sockets_open{source}": 1, "sockets_open{destination}": 0,
	}
	if d := cmp.Diff(want, gather(t, traffic, "reporter", "response_flags")); d != "" {
		t.Errorf("while open (-want +got):\n%s", d)
	}
	moved.up = 150
	c.Close(Outcome{})
	want["received_bytes_total{source,-}"], want["sockets_open{source}"] = 150, 0
	want["connections_closed_total{source,-}"] = 1
	if d := cmp.Diff(want, gather(t, traffic, "reporter", "response_flags")); d != "" {
		t.Errorf("after its end (-want +got):\n%s", d)
	}
}

// datagramsMoved is the Counter of a flow.
type datagramsMoved struct {
	bytesMoved
	to, from uint64
}

func (d *datagramsMoved) Datagrams() (uint64, uint64) { return d.to, d.from }

func TestAFlowOfUDPHasMetricsOfItsOwn(t *testing.T) {
	var log bytes.Buffer
	traffic, r := recorder(&log)
	moved := &datagramsMoved{}
	flow := Flow{Direction: Inbound, Datagrams: true, Source: client, Destination: server, SourceID: clientID}
	c := r.Open(flow, time.Now(), moved)
	*moved = datagramsMoved{bytesMoved{100, 7}, 3, 2}
	want := map[string]float64{
		"istio_udp_flows_opened_total{destination,udp,-}": 1, "istio_udp_received_bytes_total{destination,udp,-}": 100, "istio_udp_sent_bytes_total{destination,udp,-}": 7,
		"istio_udp_received_datagrams_total{destination,udp,-}": 3, "istio_udp_sent_datagrams_total{destination,udp,-}": 2,
		"sockets_open{source}": 0, "sockets_open{destination}": 0,
	}
	if d := cmp.Diff(want, gather(t, traffic, "reporter", "response_flags", "request_protocol")); d != "" {
		t.Errorf("while it lasts (-want +got):\n%s", d)
	}
	c.Close(Outcome{Flag: FlagDeny})
	want["istio_udp_flows_closed_total{destination,udp,DENY}"], want["istio_udp_flows_failed_total{destination,udp,DENY}"] = 1, 1
	if d := cmp.Diff(want, gather(t, traffic, "reporter", "response_flags", "request_protocol")); d != "" {
		t.Errorf("after its end (-want +got):\n%s", d)
	}
	for _, field := range []string{`"protocol":"udp"`, `"datagrams_recv":3`, `"datagrams_sent":2`} {
		if !strings.Contains(log.String(), field) {
			t.Errorf("the record lacks %s: %s", field, log.String())
		}
	}
}

func TestDroppedDatagramsAreCountedBeyondTheirPod(t *testing.T) {
	drops := NewDatagramDrops()
	one, other := map[string]uint64{"late": 1}, map[string]uint64{"late": 2, "overrun": 5}
	forget := drops.Watch(func() map[string]uint64 { return one })
	drops.Watch(func() map[string]uint64 { return other })
	one["late"] = 4
	forget()
	one["late"] = 100
	forget()
	want := map[string]float64{"ambit_udp_datagrams_dropped_total{late}": 6, "ambit_udp_datagrams_dropped_total{overrun}": 5}
	if d := cmp.Diff(want, gather(t, drops, "reason")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	(*DatagramDrops)(nil).Watch(nil)()
}

func TestAFailureHasItsFlag(t *testing.T) {
	traffic, r := recorder(io.Discard)
	r.Open(Flow{Direction: Inbound}, time.Now(), &bytesMoved{}).Close(Outcome{Flag: FlagDeny, Err: errors.New("no")})
	got := gather(t, traffic, "response_flags")
	for _, name := range []string{"connections_closed_total{DENY}", "connections_failed_total{DENY}", "connections_opened_total{-}"} {
		if got[name] != 1 {
			t.Errorf("%s = %v, want 1; all: %v", name, got[name], got)
		}
	}
}

func TestLabelsAreIstios(t *testing.T) {
	traffic, r := recorder(io.Discard)
	r.Open(Flow{Direction: Inbound, Source: client, Destination: server, Service: service, SourceID: clientID, DestinationID: serverID}, time.Now(), &bytesMoved{})
	r.Open(Flow{Direction: Outbound}, time.Now(), &bytesMoved{})
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(traffic)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]map[string]string{}
	for _, f := range families {
		if f.GetName() != "istio_tcp_connections_opened_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			got[labels["reporter"]] = labels
		}
	}
	want := map[string]string{
		"reporter": "destination", "request_protocol": "tcp", "response_flags": "-", "connection_security_policy": "mutual_tls",
		"source_workload": "client", "source_canonical_service": "client", "source_canonical_revision": "v1", "source_workload_namespace": "shop",
		"source_principal": "spiffe://cluster.local/ns/shop/sa/client", "source_app": "client", "source_version": "v1", "source_cluster": "Kubernetes",
		"destination_service": "web.shop.svc.cluster.local", "destination_service_namespace": "shop", "destination_service_name": "web",
		"destination_workload": "web", "destination_canonical_service": "web", "destination_canonical_revision": "unknown", "destination_workload_namespace": "shop",
		"destination_principal": "spiffe://cluster.local/ns/shop/sa/web", "destination_app": "web", "destination_version": "unknown", "destination_cluster": "Kubernetes",
		"source_region": "r", "source_zone": "z1", "destination_region": "unknown", "destination_zone": "unknown",
	}
	if d := cmp.Diff(want, got["destination"]); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}
	if _, has := got["source"]["source_zone"]; has || got["source"]["source_workload"] != "unknown" || got["source"]["connection_security_policy"] != "unknown" {
		t.Errorf("labels of a connection between unknown ends: %v", got["source"])
	}
}

func TestSeriesExpireOnlyWhenNobodyUsesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		traffic := NewTraffic(TrafficConfig{Expiry: time.Hour})
		r := NewRecorder(traffic, slog.New(slog.DiscardHandler))
		r.Open(Flow{Source: client}, time.Now(), &bytesMoved{}).Close(Outcome{})
		live := r.Open(Flow{Source: server}, time.Now(), &bytesMoved{})
		count := func() float64 { return gather(t, traffic)["connections_opened_total{}"] }
		time.Sleep(59 * time.Minute)
		if n := count(); n != 2 {
			t.Errorf("after 59 minutes: %v series, want 2", n)
		}
		time.Sleep(2 * time.Minute)
		if n := count(); n != 1 {
			t.Errorf("after 61 minutes: %v series, want the live one", n)
		}
		live.Close(Outcome{})
		time.Sleep(2 * time.Hour)
		if n := count(); n != 0 {
			t.Errorf("long after: %v series, want none", n)
		}
	})
}

func TestTheNumberOfSeriesIsBounded(t *testing.T) {
	traffic := NewTraffic(TrafficConfig{MaxSeries: 10})
	r := NewRecorder(traffic, slog.New(slog.DiscardHandler))
	for i := range 100 {
		r.Open(Flow{Source: &mesh.Workload{OwnerName: fmt.Sprint(i)}}, time.Now(), &bytesMoved{}).Close(Outcome{})
	}
	if n := len(traffic.series); n > 10 {
		t.Errorf("%d idle series held, want at most 10", n)
	}
	for i := range 100 {
		r.Open(Flow{Source: &mesh.Workload{OwnerName: fmt.Sprint("live", i)}}, time.Now(), &bytesMoved{})
	}
	if n := len(traffic.series); n > 11 {
		t.Errorf("%d live series held, want at most 10 and the one of the unknown", n)
	}
	if n := gather(t, traffic)["sockets_open{}"]; n != 100 {
		t.Errorf("%v open, want 100: connections beyond the bound are still counted", n)
	}
}

func TestAScrapeMayComeAtAnyTime(t *testing.T) {
	traffic, r := recorder(io.Discard)
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for range 200 {
				r.Open(Flow{Source: client}, time.Now(), &bytesMoved{1, 1}).Close(Outcome{})
				traffic.collect(time.Now())
			}
		})
	}
	work.Wait()
	if n := gather(t, traffic)["received_bytes_total{}"]; n != 800 {
		t.Errorf("received %v, want 800", n)
	}
}

func TestOneRecordAConnection(t *testing.T) {
	var out bytes.Buffer
	_, r := recorder(&out)
	moved := &bytesMoved{10, 20}
	c := r.Open(Flow{
		Direction: Inbound, Source: client, Destination: server, Service: service, SourceID: clientID, DestinationID: serverID,
		SourceAddr: netip.MustParseAddrPort("10.1.0.5:4000"), DestinationAddr: netip.MustParseAddrPort("10.1.0.6:15008"), HBONEAddr: "10.1.0.6:8080",
	}, time.Now(), moved)
	c.Close(Outcome{Flag: FlagDeny, Err: errors.New("closed"), Policy: mesh.PolicyKey{Namespace: "shop", Name: "deny"}, Reason: "denied by DENY policy shop/deny rule 0"})
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	delete(got, "time")
	delete(got, "duration")
	want := map[string]any{
		"level": "ERROR", "msg": "connection complete", "component": "access", "direction": "inbound",
		"src.addr": "10.1.0.5:4000", "src.workload": "client-1", "src.namespace": "shop", "src.identity": clientID.String(), "src.cluster": "Kubernetes",
		"dst.addr": "10.1.0.6:15008", "dst.hbone_addr": "10.1.0.6:8080", "dst.service": "web.shop.svc.cluster.local",
		"dst.workload": "web-1", "dst.namespace": "shop", "dst.identity": serverID.String(), "dst.cluster": "Kubernetes",
		"bytes_sent": 20.0, "bytes_recv": 10.0, "error": "closed", "policy": "shop/deny", "reason": "denied by DENY policy shop/deny rule 0",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("record (-want +got):\n%s", d)
	}
}

func TestBaggageIsReadBackAsWritten(t *testing.T) {
	w := &mesh.Workload{
		Namespace: "shop", OwnerName: "web", Type: mesh.WorkloadJob, CanonicalName: "web", CanonicalRevision: "v2",
		ClusterID: "k", Locality: mesh.Locality{Region: "r", Zone: "z"},
	}
	text := Baggage(w)
	const want = "k8s.cluster.name=k,k8s.namespace.name=shop,k8s.job.name=web,service.name=web,service.version=v2,cloud.region=r,cloud.availability_zone=z"
	if text != want {
		t.Errorf("baggage %q, want %q", text, want)
	}
	if d := cmp.Diff(*w, *ParseBaggage(text), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("read back (-want +got):\n%s", d)
	}
	for _, nothing := range []string{"", "foo=bar", "k8s.namespace.name", strings.Repeat("service.name=x,", 1000)} {
		if got := ParseBaggage(nothing); got != nil {
			t.Errorf("%.20q… described %+v", nothing, got)
		}
	}
}

func TestAPeersBaggageCannotBreakTheMetrics(t *testing.T) {
	traffic, r := recorder(io.Discard)
	r.Open(Flow{Direction: Inbound, Source: ParseBaggage("service.name=\xff\xfe\"\n{}")}, time.Now(), &bytesMoved{})
	gather(t, traffic) // fails the test if a label is not valid
}

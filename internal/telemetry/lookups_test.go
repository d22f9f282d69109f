package telemetry

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

const lookupName = "istio_on_demand_dns_total"

func TestLookupsAreCountedByWhoConnectsToWhat(t *testing.T) {
	traffic, r := recorder(io.Discard)
	for range 2 {
		r.Lookup(&Flow{Direction: Outbound, Source: client, Destination: server, Service: service})
	}
	r.Lookup(&Flow{Direction: Outbound, Source: client, SourceID: clientID, Destination: &mesh.Workload{OwnerName: "api", Namespace: "shop"}})
	got := gather(t, traffic, "source_workload", "source_version", "destination_workload", "destination_workload_namespace", "destination_cluster")
	for k := range got {
		if !strings.HasPrefix(k, lookupName) {
			delete(got, k)
		}
	}
	want := map[string]float64{
		lookupName + "{Kubernetes,web,shop,v1,client}": 2,
		lookupName + "{unknown,api,shop,v1,client}":    1,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestSeriesOfLookupsAreBoundedAndExpire(t *testing.T) {
	const most = maxLookups + maxLookups/5
	synctest.Test(t, func(t *testing.T) {
		traffic, r := recorder(io.Discard)
		for i := range most {
			r.Lookup(&Flow{Source: client, Destination: &mesh.Workload{OwnerName: fmt.Sprint("api-", i)}})
			time.Sleep(time.Millisecond)
		}
		if n := len(traffic.lookups); n > maxLookups {
			t.Errorf("%d series are kept, want at most %d", n, maxLookups)
		}
		newest := lookup{endOf(client, clientID), endOf(&mesh.Workload{OwnerName: fmt.Sprint("api-", most-1)}, serverID)}
		newest.source.principal, newest.destination.principal = unknown, unknown
		if traffic.lookups[newest] == nil {
			t.Error("the newest is not among them")
		}
		time.Sleep(time.Hour)
		r.Lookup(&Flow{Source: client, Destination: server})
		gather(t, traffic)
		if n := len(traffic.lookups); n != 1 {
			t.Errorf("after an hour %d are kept, want the one that was used", n)
		}
	})
}

package outbound

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/ztunnel/dump"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

func TestAnEndpointIsKeptUntilTheClientHasBeenAwayForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a affinities
		s := &mesh.Service{Namespace: "shop", Hostname: "web", Affinity: time.Minute}
		a.keep(&route.OutboundDecision{Service: s, Workload: &mesh.Workload{UID: "w1"}})
		for range 5 {
			time.Sleep(40 * time.Second)
			if got := a.of(s.Key()); got != "w1" {
				t.Fatalf("it keeps %q", got)
			}
			a.keep(&route.OutboundDecision{Service: s, Workload: &mesh.Workload{UID: "w1"}})
		}
		time.Sleep(61 * time.Second)
		if got := a.of(s.Key()); got != "" {
			t.Errorf("after a minute it keeps %q", got)
		}
		for i := range 3 * mostKept {
			a.keep(&route.OutboundDecision{Service: &mesh.Service{Namespace: "shop", Hostname: strconv.Itoa(i), Affinity: time.Minute}, Workload: &mesh.Workload{}})
		}
		if len(a.kept) > mostKept {
			t.Errorf("it keeps %d, want at most %d", len(a.kept), mostKept)
		}
	})
}

func TestConnectionsToAServiceWithAffinityKeepTheirEndpoint(t *testing.T) {
	r := newRig(t)
	model, err := dump.ParseLocal([]byte(world))
	if err != nil {
		t.Fatal(err)
	}
	k := mesh.ServiceKey{Namespace: "shop", Hostname: "web.shop.svc"}
	model.Services[k].Affinity = time.Hour
	r.out.Store.Replace(model)
	for range 8 {
		if _, err := r.send("10.96.0.1:80", "x"); err != nil {
			t.Fatal(err)
		}
	}
	first := r.tunnels.asked[0]
	if strings.Count(strings.Join(r.tunnels.asked, " "), first) != 8 {
		t.Errorf("tunnels to %v, want one endpoint", r.tunnels.asked)
	}
	other := map[string]string{"10.1.0.6:15008": "k//Pod/shop/b", "10.1.0.7:15008": "k//Pod/shop/a"}[first]
	r.out.affinities.keep(&route.OutboundDecision{Service: model.Services[k], Workload: model.Workloads[other]})
	if _, err := r.send("10.96.0.1:80", "x"); err != nil || r.tunnels.asked[8] == first {
		t.Errorf("it went to %v, %v, though another endpoint was kept", r.tunnels.asked[8], err)
	}
}

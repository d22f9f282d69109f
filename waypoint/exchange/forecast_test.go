package exchange

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

func TestForecastsSayWhatRequestsGetAndSendNothing(t *testing.T) {
	r := newRig(t)
	var asked atomic.Int64
	serve := backendtest.HTTP(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1) })
	for _, name := range []string{"web", "v1", "v2"} {
		r.service(name, mesh.AppUnknown, r.pod(name, serve))
	}
	r.service("empty", mesh.AppUnknown)
	k := mesh.PolicyKey{Namespace: "shop", Name: "no-deletes"}
	r.state.model.Policies[k] = &mesh.Policy{Key: k, Action: mesh.ActionDeny, Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{
		HTTP: &mesh.HTTPMatch{Methods: []mesh.StringMatch{{Value: "DELETE"}}},
	}}}}}}}
	path := func(p string) []mesh.RequestMatch {
		return []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathPrefix, Value: p}}}
	}
	r.rules(
		mesh.RouteRule{Matches: path("/split"), Backends: []mesh.Backend{to("v1", 90), to("v2", 10)}, Filters: mesh.Filters{Mirrors: []mesh.Mirror{{Backend: to("web", 1), Numerator: 1, Denominator: 1}}}},
		mesh.RouteRule{Matches: path("/old"), Filters: mesh.Filters{Redirect: &mesh.Redirect{Host: "new.example", Status: 301}}},
		mesh.RouteRule{Matches: path("/empty"), Backends: []mesh.Backend{to("empty", 1)}},
		mesh.RouteRule{Matches: path("/invalid"), Backends: []mesh.Backend{{Service: key("gone"), Port: 80, Weight: 1, Invalid: "no such service"}}},
	)
	for _, tt := range []struct {
		line    string
		allowed bool
		says    string
		backend string
	}{
		{"GET /split", true, "it would reach one of 1 endpoints of shop/v", "one of shop/v1.shop.svc.cluster.local:80 (weight 90), shop/v2.shop.svc.cluster.local:80 (weight 10)"},
		{"GET /old/x", true, "its route would answer 301", ""},
		{"GET /empty", false, "answered 503: no endpoint of shop/empty.shop.svc.cluster.local is ready", ""},
		{"GET /invalid", false, "answered 500: no valid backend: no such service", ""},
		{"GET /elsewhere", false, "answered 404: no rule of a route takes the request", ""},
		{"DELETE /split", false, "answered 403: denied by DENY policy shop/no-deletes rule 0", ""},
	} {
		method, p, _ := strings.Cut(tt.line, " ")
		q, err := http.NewRequest(method, "http://web"+p, nil)
		if err != nil {
			t.Fatal(err)
		}
		f := r.x.Forecast(&r.arrival, q)
		if f.Allowed != tt.allowed || !strings.Contains(f.Says, tt.says) || tt.backend != "" && f.Story.Backend != tt.backend {
			t.Errorf("%s: %v, %q, backend %q; want %v, %q, %q", tt.line, f.Allowed, f.Says, f.Story.Backend, tt.allowed, tt.says, tt.backend)
		}
		if len(f.Story.Policies) != 1 || f.Story.Generation != 7 || !strings.HasPrefix(f.Story.Asked, method+" web"+p) {
			t.Errorf("%s: story %+v", tt.line, f.Story)
		}
		// What is foreseen is what happens.
		resp, _ := r.do(false, tt.line, "")
		if happened := resp.StatusCode < 400; happened != tt.allowed || !happened && !strings.Contains(f.Says, strings.Fields(resp.Status)[0]) {
			t.Errorf("%s: foreseen %q, it was answered %s", tt.line, f.Says, resp.Status)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, records := asked.Load(), len(r.records); n > 2 || records > 6 {
		t.Errorf("backends were asked %d times and %d records written: forecasts must send and record nothing", n, records)
	}
}

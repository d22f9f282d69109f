package exchange

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// story waits for the last request's.
func (r *rig) story() decision.Story {
	r.t.Helper()
	id := r.last().ID
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if s := r.ring.Find(id); len(s) == 1 {
			return s[0]
		}
	}
	r.t.Fatalf("decision %s is not remembered", id)
	return decision.Story{}
}

// forget lets the next record be the last one.
func (r *rig) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = nil
}

func TestStoriesSayWhyAndWhyNot(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"web", "v2"} {
		r.service(name, mesh.AppUnknown, r.pod(name, backendtest.Named(name)))
	}
	method := func(m string) []mesh.Rule {
		return []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{HTTP: &mesh.HTTPMatch{Methods: []mesh.StringMatch{{Value: m}}}}}}}}}
	}
	for name, p := range map[string]*mesh.Policy{"no-deletes": {Action: mesh.ActionDeny, Rules: method("DELETE")}, "trial": {Action: mesh.ActionDeny, DryRun: true, Rules: method("GET")}} {
		p.Key = mesh.PolicyKey{Namespace: "shop", Name: name}
		r.state.model.Policies[p.Key] = p
	}
	r.rules(
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Headers: []mesh.ValueMatch{{Name: "end-user", Value: "jason"}}}}, Backends: []mesh.Backend{to("web", 1)}},
		mesh.RouteRule{
			Index: 1, Name: "cart", Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathPrefix, Value: "/cart"}}}, Backends: []mesh.Backend{to("v2", 1)},
			Filters: mesh.Filters{Request: &mesh.HeaderEdit{Set: []mesh.Header{{Name: "End-User", Value: "jason"}}, Remove: []string{"X-Any"}}},
		},
	)
	policies := func(s decision.Story) map[string]string {
		out := map[string]string{}
		for _, v := range s.Policies {
			out[v.Policy] = v.String()
		}
		return out
	}
	routes := func(s decision.Story) []string {
		out := []string{}
		for _, m := range s.Routes {
			out = append(out, m.String())
		}
		return out
	}

	r.do(false, "GET /cart?token=secret", "", "End-User: mary", "Authorization: secret")
	s := r.story()
	if d := cmp.Diff(map[string]string{
		"shop/no-deletes": "DENY shop/no-deletes: does not match", "shop/trial": "DENY shop/trial: rule 0 matches (dry run)",
	}, policies(s)); d != "" {
		t.Errorf("policies (-want +got):\n%s", d)
	}
	got := routes(s)
	if len(got) != 2 || !strings.Contains(got[1], "HTTPRoute/shop/route rule 1 (cart) match 0 taken: matches path prefix /cart") {
		t.Errorf("routes %q", got)
	}
	if s.Ruling != "allowed: no policy restricts it" || s.Backend != key("v2").String()+":80" || s.Destination.Workload != "shop/v2" || s.Outcome.Status != 200 || s.Generation != 7 {
		t.Errorf("story %+v", s)
	}
	var text strings.Builder
	if s.Write(&text); strings.Contains(text.String(), "secret") || strings.Contains(text.String(), "mary") {
		t.Errorf("a story tells what only the client may know:\n%s", text.String())
	}

	r.forget()
	r.do(false, "GET /other", "", "End-User: mary")
	got = routes(r.story())
	if len(got) != 4 || !strings.Contains(got[1], "path prefix /cart is another") || !strings.Contains(got[2], "header End-User: jason has another value") || got[3] != "none of the routes matches" {
		t.Errorf("routes of what has none: %q", got)
	}

	r.forget()
	r.do(false, "DELETE /cart", "")
	s = r.story()
	if p := policies(s)["shop/no-deletes"]; p != "DENY shop/no-deletes: rule 0 matches ←" || len(s.Routes) != 0 || s.Ruling != "denied by DENY policy shop/no-deletes rule 0" {
		t.Errorf("a denial: %q, routes %q, ruling %q", p, routes(s), s.Ruling)
	}

	r.forget()
	r.do(false, "GET /cart", "", "X-Large: "+strings.Repeat("x", maxKept))
	s = r.story()
	if got := routes(s); len(s.Policies) != 0 || len(got) != 1 || !strings.Contains(got[0], "too large to keep") || s.Outcome.Status != 200 {
		t.Errorf("a large header: %q, %+v", got, s)
	}
}

func TestATraceGoesThroughAndWithoutTracingPassesAsItIs(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	r := newRig(t)
	r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Got", q.Header.Get("Traceparent")+" "+q.Header.Get("B3"))
	})))
	resp, _ := r.do(false, "GET /", "", "Traceparent: "+parent, "B3: 0")
	if got := resp.Header.Get("X-Got"); got != parent+" 0" || r.last().TraceParent != parent {
		t.Errorf("without tracing the backend got %q, the record %q", got, r.last().TraceParent)
	}

	var mu sync.Mutex
	var received []byte
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		mu.Lock()
		defer mu.Unlock()
		received = append(received, b...)
	}))
	defer collector.Close()
	tracer, err := tracing.New(t.Context(), tracing.Config{Endpoint: collector.URL + "/v1/traces", HTTP: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.forget()
	r.x.config.Tracer = tracer
	resp, _ = r.do(false, "GET /", "", "Traceparent: "+parent)
	e := r.last()
	got := resp.Header.Get("X-Got")
	if e.TraceID != parent[3:35] || !strings.HasPrefix(got, parent[:36]) || strings.Contains(got, parent[36:52]) || strings.Contains(got, e.TraceParent[36:52]) {
		t.Errorf("the client's %s, the request's %s, the try's %s: want one trace of three spans", parent, e.TraceParent, got)
	}
	r.story() // comes after the span's end
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"GET web.shop.svc.cluster.local", e.ID, "try"} {
		if !strings.Contains(string(received), want) {
			t.Errorf("the collector was not told of %q", want)
		}
	}
}

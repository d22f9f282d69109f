package exchange

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

func TestProvidersAreAsked(t *testing.T) {
	r := newRig(t)
	var got atomic.Pointer[http.Request]
	var body atomic.Value
	r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		body.Store(string(b))
		got.Store(q)
	})))
	var told atomic.Value
	r.service("authz", mesh.AppHTTP11, r.pod("authz", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		told.Store(string(b))
		w.Header().Set("X-Reason", "because")
		w.Header().Set("X-User", "jane")
		if q.Header.Get("X-Allow") == "" {
			w.WriteHeader(418)
			io.WriteString(w, "no tea")
		}
	})))
	k := mesh.PolicyKey{Namespace: "shop", Name: "ask"}
	any := func(s string) []mesh.StringMatch { return []mesh.StringMatch{{Value: s}} }
	provider := &mesh.Provider{
		Name: "p", Service: key("authz"), Port: 80, MaxBody: 10, Timeout: 10 * time.Second,
		IncludeRequestHeaders: any("x-allow"), HeadersToUpstream: any("x-user"), HeadersToDownstreamOnDeny: any("x-reason"),
	}
	set := func(p *mesh.Provider) {
		r.state.model.Policies[k] = &mesh.Policy{Key: k, Action: mesh.ActionCustom, Provider: p, Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{
			HTTP: &mesh.HTTPMatch{Paths: []mesh.PathPattern{{StringMatch: mesh.StringMatch{Value: "/asked"}}}},
		}}}}}}}
		r.publish()
	}
	set(provider)
	if resp, _ := r.do(false, "POST /", "x"); resp.StatusCode != 200 {
		t.Errorf("what no policy is about: %s", resp.Status)
	}
	if resp, _ := r.do(false, "POST /asked", "0123456789", "X-Allow: yes"); resp.StatusCode != 200 {
		t.Errorf("allowed: %s", resp.Status)
	} else if got.Load().Header.Get("X-User") != "jane" || told.Load() != "0123456789" || body.Load() != "0123456789" {
		t.Errorf("the backend got %v %q; the provider was told %q", got.Load().Header, body.Load(), told.Load())
	}
	got.Store(nil)
	resp, text := r.do(false, "POST /asked", "x")
	if e := r.last(); resp.StatusCode != 418 || text != "no tea" || resp.Header.Get("X-Reason") != "because" || resp.Header.Get(decision.Header) != e.ID ||
		e.Flag != telemetry.ExchangeUnauthorized || e.Policy != k {
		t.Errorf("refused: %s %q %v, record %+v", resp.Status, text, resp.Header, e)
	}
	if resp, _ := r.do(false, "POST /asked", "0123456789a", "X-Allow: yes"); resp.StatusCode != 413 {
		t.Errorf("a body that is too long to tell: %s", resp.Status)
	}
	partial := *provider
	partial.AllowPartial = true
	set(&partial)
	long := strings.Repeat("0123456789", 20_000)
	if resp, _ := r.do(false, "POST /asked", long, "X-Allow: yes"); resp.StatusCode != 200 || told.Load() != "0123456789" || body.Load() != long {
		t.Errorf("the beginning of a long body: %s, told %q", resp.Status, told.Load())
	}
	got.Store(nil)
	for name, change := range map[string]func(*mesh.Provider) *mesh.Provider{
		"not configured": func(*mesh.Provider) *mesh.Provider { return nil },
		"not there":      func(p *mesh.Provider) *mesh.Provider { p.Service = key("gone"); return p },
	} {
		p := *provider
		set(change(&p))
		if resp, _ := r.do(false, "POST /asked", "", "X-Allow: yes"); resp.StatusCode != 403 || got.Load() != nil {
			t.Errorf("a provider that is %s: %s", name, resp.Status)
		}
	}
	open := *provider
	open.Service, open.FailOpen = key("gone"), true
	set(&open)
	if resp, _ := r.do(false, "POST /asked", ""); resp.StatusCode != 200 {
		t.Errorf("a provider that fails open: %s", resp.Status)
	}
}

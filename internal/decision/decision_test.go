package decision

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

var update = flag.Bool("update", false, "rewrite golden files")

var start = time.Date(2026, 11, 26, 4, 44, 3, 0, time.UTC)

// told is a Teller whose story is ready.
type told Story

func (t told) Tell() Story { return Story(t) }

func TestIDsAreShortAndTheirFormIsChecked(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 {
		id := NewID()
		if !ValidID(id) {
			t.Fatalf("%q is not valid", id)
		}
		seen[id] = true
	}
	if len(seen) < 9_990 {
		t.Errorf("10000 ids are only %d", len(seen))
	}
	for _, bad := range []string{"", "abcdefg", "abcdefghj", "abcdefgi", "ABCDEFGH", "abc/efgh", "abcdefg\n", "abcdefg\x80", "abcdefgl", "0123456:"} {
		if ValidID(bad) {
			t.Errorf("%q passes for an id", bad)
		}
	}
}

func TestWhatPassedDoesNotPushOutWhatWasRefused(t *testing.T) {
	r := NewRing(Config{Passed: 3, Refused: 2})
	r.Keep("refused0", false, told{ID: "refused0"})
	r.Keep("refused1", false, told{ID: "refused1"})
	r.Keep("refused2", false, told{ID: "refused2"})
	for i := range 100 {
		id := fmt.Sprint("passed", i)
		r.Keep(id, true, told{ID: id})
	}
	for id, want := range map[string]int{"refused0": 0, "refused1": 1, "refused2": 1, "passed96": 0, "passed97": 1, "passed98": 1, "passed99": 1, "never": 0} {
		if got := len(r.Find(id)); got != want {
			t.Errorf("%s: %d stories, want %d", id, got, want)
		}
	}
	if n := len(r.passed.kept) + len(r.refused.kept); n != 5 {
		t.Errorf("%d decisions held, want 5", n)
	}
}

func TestBothEndsOfATunnelAreToldInTheirOrder(t *testing.T) {
	r := NewRing(Config{})
	r.Keep("abcdefgh", true, told{ID: "abcdefgh", At: start.Add(time.Second), Asked: "second"})
	r.Keep("abcdefgh", false, told{ID: "abcdefgh", At: start, Asked: "first"})
	if s := r.Find("abcdefgh"); len(s) != 2 || s[0].Asked != "first" || s[1].Asked != "second" {
		t.Errorf("told %+v", s)
	}
}

func TestARingMayBeAskedAtAnyTime(t *testing.T) {
	r := NewRing(Config{Passed: 4, Refused: 4})
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for range 500 {
				r.Keep("abcdefgh", true, told{})
				r.Find("abcdefgh")
			}
		})
	}
	work.Wait()
}

// exchange is a denied request with much in it.
func exchange() *telemetry.Exchange {
	return &telemetry.Exchange{
		ID: "k7q2m4xa", Start: start, Generation: 42,
		Source:   &mesh.Workload{Name: "client-1", Namespace: "shop"},
		SourceID: spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "client"}, SourceAddr: netip.MustParseAddrPort("10.1.0.5:4000"),
		Service: &mesh.Service{Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local"}, Port: 80,
		Protocol: "http", Proto: "HTTP/1.1", Method: "GET", Host: "web", Path: "/cart?token=secret", Status: 200, GRPCStatus: -1, Flag: telemetry.ExchangeOK,
		ResponseBytes: 700, Duration: 12 * time.Millisecond, TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
}

func TestStoriesForPeople(t *testing.T) {
	routed := exchange()
	routed.Destination = &mesh.Workload{Name: "web-v2-9", Namespace: "shop"}
	routed.DestinationID, routed.DestinationAddr = spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"}, netip.MustParseAddrPort("10.1.0.7:8080")
	routed.Backend, routed.BackendPort = mesh.ServiceKey{Namespace: "shop", Hostname: "web-v2.shop.svc.cluster.local"}, 80
	routed.Attempts = []telemetry.Attempt{
		{Workload: "Kubernetes//Pod/shop/web-v2-8", Addr: netip.MustParseAddrPort("10.1.0.6:8080"), Err: "connection refused", Duration: 250 * time.Microsecond},
		{Workload: "Kubernetes//Pod/shop/web-v2-9", Addr: netip.MustParseAddrPort("10.1.0.7:8080"), Status: 200, Duration: 11 * time.Millisecond},
	}
	good := OfExchange(routed)
	good.Proxy = "waypoint shop/waypoint-1"
	good.Tokens = []Line{{"shop/jwt", "no token was sent"}}
	good.Policies = []Verdict{
		{Policy: "shop/no-deletes", Action: "DENY", Says: "did not match: rule 0 wants method DELETE"},
		{Policy: "shop/trial", Action: "DENY", DryRun: true, Says: "matched by rule 1"},
		{Policy: "shop/readers", Action: "ALLOW", Decided: true, Says: "matched by rule 0"},
	}
	good.Ruling = "allowed by ALLOW policy shop/readers rule 0"
	good.Routes = []Match{
		{Route: "HTTPRoute/shop/web", Rule: "0", Says: "header end-user is not jason"},
		{Route: "HTTPRoute/shop/web", Rule: "cart", Taken: true, Says: "path has the prefix /cart"},
	}
	good.Choice = "the less busy of two"

	denied := exchange()
	denied.Protocol, denied.GRPCStatus = "grpc", 7
	denied.Path = "/shop.Cart/Empty\x1b[2J\nGET /"
	denied.Flag, denied.Policy, denied.Reason = telemetry.ExchangeDenied, mesh.PolicyKey{Namespace: "shop", Name: "readers"}, "denied: no ALLOW policy matches (shop/readers applies)"
	denied.Err = errors.New("denied")
	bad := OfExchange(denied)

	flow := OfFlow(&telemetry.Flow{
		ID: "k7q2m4xb", Source: routed.Source, SourceID: routed.SourceID, SourceAddr: routed.SourceAddr, HBONEAddr: "10.1.0.7:5432",
		Destination: routed.Destination, DestinationAddr: netip.MustParseAddrPort("10.1.0.7:15008"),
	}, telemetry.Outcome{Flag: telemetry.FlagDeny, Policy: mesh.PolicyKey{Namespace: "shop", Name: "db"}, Reason: "denied by DENY policy shop/db rule 0"})
	flow.At = start

	var got strings.Builder
	for _, s := range []Story{good, bad, flow, {ID: "k7q2m4xc", Kind: Request}} {
		if err := s.Write(&got); err != nil {
			t.Fatal(err)
		}
		got.WriteByte('\n')
	}
	const golden = "testdata/stories.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("the stories changed (-golden +told):\n%s", d)
	}
}

func TestPages(t *testing.T) {
	r := NewRing(Config{})
	s := OfExchange(exchange())
	r.Keep(s.ID, true, told(s))
	mux := http.NewServeMux()
	for pattern, h := range Pages(r, "waypoint shop/waypoint-1") {
		mux.Handle(pattern, h)
	}
	for _, tt := range []struct {
		path   string
		status int
		told   int
	}{
		{"/decisions/k7q2m4xa", 200, 1},
		{"/decisions/k7q2m4xz", 404, 0},
		{"/decisions", 200, 1},
		{"/decisions?source=shop/client&destination=web", 200, 1},
		{"/decisions?source=sa/CLIENT", 200, 1},
		{"/decisions?source=10.1.0.5", 200, 1},
		{"/decisions?source=other", 200, 0},
		{"/decisions?destination=other", 200, 0},
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", tt.path, nil))
		if w.Code != tt.status {
			t.Errorf("%s: status %d, want %d", tt.path, w.Code, tt.status)
		}
		if w.Code != 200 {
			continue
		}
		var stories []Story
		if err := json.Unmarshal(w.Body.Bytes(), &stories); err != nil {
			t.Fatalf("%s: %v", tt.path, err)
		}
		if len(stories) != tt.told {
			t.Errorf("%s: %d stories, want %d", tt.path, len(stories), tt.told)
		}
		if strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: the query is told", tt.path)
		}
		for _, got := range stories {
			got.Proxy = ""
			if d := cmp.Diff(s, got); d != "" {
				t.Errorf("%s: read back (-want +got):\n%s", tt.path, d)
			}
		}
	}
}

func BenchmarkKeep(b *testing.B) {
	r := NewRing(Config{})
	var t Teller = told{}
	b.ReportAllocs()
	for b.Loop() {
		r.Keep(NewID(), true, t)
	}
}

package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// told is a Teller whose story is ready.
type told decision.Story

func (t told) Tell() decision.Story { return decision.Story(t) }

// serve serves h for the test and gives the way to it.
func serve(t *testing.T, name string, h http.Handler) Opener {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return func(context.Context) (*reach.Door, error) { return &reach.Door{Name: name, URL: s.URL}, nil }
}

// remembering is a proxy's administration that remembers stories.
func remembering(t *testing.T, name string, stories ...decision.Story) Opener {
	t.Helper()
	r := decision.NewRing(decision.Config{})
	for _, s := range stories {
		r.Keep(s.ID, true, told(s))
	}
	mux := http.NewServeMux()
	for pattern, h := range decision.Pages(r, "proxy "+name) {
		mux.Handle(pattern, h)
	}
	return serve(t, name, mux)
}

func TestADecisionIsSearchedEverywhere(t *testing.T) {
	at := time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC)
	const id = "k7q2m4xa"
	proxies := []Opener{
		remembering(t, "server", decision.Story{ID: id, At: at.Add(time.Millisecond), Asked: "at the server"}, decision.Story{ID: "k7q2m4xb"}),
		serve(t, "old", http.NotFoundHandler()), // a proxy of another build, without such a page
		func(context.Context) (*reach.Door, error) { return nil, errors.New("pod gone") },
		remembering(t, "other"),
		remembering(t, "client", decision.Story{ID: id, At: at, Asked: "at the client"}),
	}
	stories, silent, err := Why(t.Context(), proxies, id)
	if err != nil || len(stories) != 2 || stories[0].Asked != "at the client" || stories[0].Proxy != "proxy client" || stories[1].Asked != "at the server" {
		t.Errorf("stories %+v, %v", stories, err)
	}
	if len(silent) != 2 || !strings.Contains(silent[0].Error(), "404") || !strings.Contains(silent[1].Error(), "pod gone") {
		t.Errorf("silent: %v", silent)
	}
	_, silent, err = Why(t.Context(), proxies, "00000000")
	if want := (&NotRememberedError{ID: "00000000", Asked: 3}); err == nil || err.Error() != want.Error() || len(silent) != 2 {
		t.Errorf("a decision of nobody: %v, silent %v", err, silent)
	}
	if _, _, err := Why(t.Context(), proxies, "../quitquitquit"); err == nil || !strings.Contains(err.Error(), "no id of a decision") {
		t.Errorf("what is no id: %v", err)
	}
}

// client is a connected proxy that has acknowledged a generation of all.
func client(kind, pod string, acked uint64) Client {
	return Client{
		ID: kind + "~10.0.0.1~" + pod + ".istio-system~istio-system.svc.cluster.local", Node: "n-" + pod,
		Types: []Type{{Type: "addresses", Sent: 9, Acked: 9}, {Type: "policies", Sent: 9, Acked: acked}},
	}
}

// plane is a control plane's pages whose answers tests change.
type plane struct {
	at    atomic.Pointer[Standing]
	held  atomic.Pointer[[]Held]
	asked atomic.Pointer[[]Version]
}

func (p *plane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /debug/generation":
		json.NewEncoder(w).Encode(p.at.Load())
	case "POST /debug/held":
		var asked []Version
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.asked.Store(&asked)
		json.NewEncoder(w).Encode(p.held.Load())
	default:
		http.NotFound(w, r)
	}
}

func newPlane(t *testing.T, name string, generation uint64, clients ...Client) (*plane, Opener) {
	t.Helper()
	p := &plane{}
	p.at.Store(&Standing{Generation: generation, Clients: clients})
	p.held.Store(&[]Held{})
	return p, serve(t, name, p)
}

func TestWhoIsBehind(t *testing.T) {
	refusing := client("waypoint", "w1", 3)
	refusing.Types[1].LastNack, refusing.Types[1].Nacked = "HTTPRoute/shop/web: bad", 4
	recovered := client("waypoint", "w2", 9)
	recovered.Types[1].LastNack, recovered.Types[1].Nacked = "old", 4
	silent := Client{ID: "odd"}
	_, one := newPlane(t, "istio-system/istiod-1", 9, client("ztunnel", "z1", 9), client("ztunnel", "z2", 7), refusing)
	_, two := newPlane(t, "istio-system/istiod-2", 4, client("ztunnel", "z3", 4), recovered, silent)
	running := []Proxy{{"istio-system/z1", "ztunnel", "n1"}, {"istio-system/z4", "ztunnel", "n4"}}
	r, err := Status(t.Context(), []Opener{one, two}, running)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, p := range r.Proxies {
		got = append(got, fmt.Sprintf("%s %s has %d, %d behind %q: %s", p.Kind, p.Proxy, p.Generation, p.Lag, p.ControlPlane, p.Says))
	}
	want := []string{
		`odd odd has 0, 4 behind "istio-system/istiod-2": has not acknowledged`,
		`waypoint istio-system/w1 has 3, 6 behind "istio-system/istiod-1": refused HTTPRoute/shop/web: bad`,
		`waypoint istio-system/w2 has 9, 0 behind "istio-system/istiod-2": `,
		`ztunnel istio-system/z1 has 9, 0 behind "istio-system/istiod-1": `,
		`ztunnel istio-system/z2 has 7, 2 behind "istio-system/istiod-1": has not acknowledged`,
		`ztunnel istio-system/z3 has 4, 0 behind "istio-system/istiod-2": `,
		`ztunnel istio-system/z4 has 0, 0 behind "": not connected to the control plane`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("proxies (-want +got):\n%s", d)
	}
	if !r.Behind() {
		t.Error("nobody is said to be behind")
	}
	if _, err := Status(t.Context(), []Opener{one, serve(t, "old", http.NotFoundHandler())}, nil); err == nil {
		t.Error("a replica that does not answer was passed over")
	}
}

var route = Version{APIVersion: "gateway.networking.k8s.io/v1", Kind: "HTTPRoute", Namespace: "shop", Name: "web", ResourceVersion: "77"}

func held(state string, generation uint64, conditions ...Condition) *[]Held {
	return &[]Held{{Version: route, State: state, Generation: generation, Conditions: conditions}}
}

func TestWhatIsServed(t *testing.T) {
	refusing := client("waypoint", "w1", 9)
	refusing.Types[1].LastNack, refusing.Types[1].Nacked = "HTTPRoute/shop/web: bad", 8
	z1 := Proxy{"istio-system/z1", "ztunnel", "n1"}
	for _, tt := range []struct {
		sentence string
		held     *[]Held
		clients  []Client
		running  []Proxy
		missing  string
	}{
		{"everybody has it", held("held", 8), []Client{client("ztunnel", "z1", 8)}, []Proxy{z1}, ""},
		{"it has not been read", held("pending", 0), []Client{client("ztunnel", "z1", 8)}, []Proxy{z1}, "istiod has not read httproute/web in shop"},
		{"a state that this command does not know is not held", held("dreamt", 8), []Client{client("ztunnel", "z1", 8)}, []Proxy{z1}, "istiod has not read httproute/web in shop"},
		{"one has an older generation", held("held", 8), []Client{client("ztunnel", "z1", 7)}, []Proxy{z1}, "ztunnel istio-system/z1 has acknowledged 7 of 8"},
		{"one has refused it, and took what came later", held("held", 8), []Client{refusing}, nil, "waypoint istio-system/w1 refused HTTPRoute/shop/web: bad"},
		{"one had refused what was before it", held("held", 9), []Client{refusing}, nil, ""},
		{"one runs and is connected to nobody", held("held", 8), nil, []Proxy{z1}, "ztunnel istio-system/z1 is not connected to the control plane"},
		{"no proxy is concerned", held("unread", 0), []Client{client("ztunnel", "z1", 0)}, []Proxy{z1}, ""},
	} {
		p, open := newPlane(t, "istiod", 9, tt.clients...)
		p.held.Store(tt.held)
		d, _ := open(t.Context())
		s, err := Served(t.Context(), []*reach.Door{d}, tt.running, []Version{route})
		if err != nil {
			t.Errorf("%s: %v", tt.sentence, err)
			continue
		}
		if got := strings.Join(s.Missing, "; "); got != tt.missing {
			t.Errorf("%s: missing %q, want %q", tt.sentence, got, tt.missing)
		}
		if d := cmp.Diff([]Version{route}, *p.asked.Load()); d != "" {
			t.Errorf("%s: asked (-want +got):\n%s", tt.sentence, d)
		}
	}
}

func TestEveryReplicaCountsForItself(t *testing.T) {
	one, first := newPlane(t, "istiod-1", 9, client("ztunnel", "z1", 9))
	two, second := newPlane(t, "istiod-2", 3, client("ztunnel", "z2", 2))
	one.held.Store(held("held", 9))
	two.held.Store(held("held", 3))
	a, _ := first(t.Context())
	b, _ := second(t.Context())
	running := []Proxy{{"istio-system/z1", "ztunnel", ""}, {"istio-system/z2", "ztunnel", ""}}
	s, err := Served(t.Context(), []*reach.Door{a, b}, running, []Version{route})
	if err != nil || strings.Join(s.Missing, "; ") != "ztunnel istio-system/z2 has acknowledged 2 of 3" {
		t.Errorf("missing %v, %v", s, err)
	}
}

func TestConditionsThatAreNotTrueAreDoubts(t *testing.T) {
	s := &Service{Objects: *held("held", 8,
		Condition{Type: "Accepted", Status: true, Reason: "Accepted", Parent: "Service shop/web"},
		Condition{Type: "ResolvedRefs", Reason: "BackendNotFound", Message: "service shop/web-v3 is not there", Parent: "Service shop/web"},
		Condition{Type: "Programmed", Reason: "Pending"},
	)}
	want := []string{
		"httproute/web in shop, for Service shop/web: ResolvedRefs is false (BackendNotFound): service shop/web-v3 is not there",
		"httproute/web in shop: Programmed is false (Pending)",
	}
	if d := cmp.Diff(want, s.Doubts()); d != "" {
		t.Errorf("doubts (-want +got):\n%s", d)
	}
}

func TestAwaitReturnsWhenItIsServedAndSaysWhatIsMissingOtherwise(t *testing.T) {
	p, open := newPlane(t, "istiod", 9, client("ztunnel", "z1", 7))
	p.held.Store(held("pending", 0))
	d, _ := open(t.Context())
	polls := 0
	running := func(context.Context) ([]Proxy, error) {
		switch polls++; polls {
		case 1:
			return nil, errors.New("the API server is away for a moment")
		case 3:
			p.held.Store(held("held", 8))
		case 4:
			p.at.Store(&Standing{Generation: 9, Clients: []Client{client("ztunnel", "z1", 8)}})
		}
		return nil, nil
	}
	if _, err := Await(t.Context(), []*reach.Door{d}, running, []Version{route}); err != nil || polls != 4 {
		t.Errorf("after %d looks: %v, want none after 4", polls, err)
	}
	p.at.Store(&Standing{Generation: 9, Clients: []Client{client("ztunnel", "z1", 7)}})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("not served after a while"))
	defer cancel()
	last, err := Await(ctx, []*reach.Door{d}, running, []Version{route})
	if err == nil || last == nil || err.Error() != "not served after a while: ztunnel istio-system/z1 has acknowledged 7 of 8" {
		t.Errorf("error %v with %+v", err, last)
	}
}

// forecasting is a proxy's administration that answers questions.
func forecasting(t *testing.T, name string, f decision.Forecaster) Opener {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("POST /can", decision.CanPage(f, name))
	return serve(t, name, mux)
}

func TestTheWaypointIsAskedWhereThereIsOne(t *testing.T) {
	away := func(context.Context) (*reach.Door, error) { return nil, errors.New("pod gone") }
	allows := forecasting(t, "waypoint", func(_ context.Context, a *decision.Asked) (decision.Forecast, error) {
		return decision.Forecast{Allowed: a.Request.Header.Get("X-A") == "b" && a.Request.Method == "GET", Says: "by the waypoint"}, nil
	})
	byNode := func(f decision.Forecast) Opener {
		return forecasting(t, "ztunnel", func(context.Context, *decision.Asked) (decision.Forecast, error) { return f, nil })
	}
	behind := byNode(decision.Forecast{Waypoint: "shop/wp.shop.svc.cluster.local"})
	for _, tt := range []struct {
		sentence  string
		ztunnels  []Opener
		waypoints []Opener
		allowed   bool
		says      string
	}{
		{"without one the node proxy says", []Opener{byNode(decision.Forecast{Allowed: true, Says: "by ztunnel"})}, nil, true, "by ztunnel"},
		{"with one the waypoint says", []Opener{behind}, []Opener{allows}, true, "by the waypoint"},
		{"a replica that is away is passed over", []Opener{away, behind}, []Opener{away, allows}, true, "by the waypoint"},
		{"a waypoint that does not run closes", []Opener{behind}, nil, false, "does not run"},
		{"a waypoint that does not answer is an error", []Opener{behind}, []Opener{away}, false, "error: pod gone"},
		{"a service that nobody knows", []Opener{forecasting(t, "ztunnel", func(context.Context, *decision.Asked) (decision.Forecast, error) {
			return decision.Forecast{}, errors.New("no service web is known here")
		}), away}, nil, false, "error: ztunnel says: no service web is known here"},
	} {
		q := &decision.Question{Source: "spiffe://cluster.local/ns/shop/sa/client", Method: "GET", URL: "http://web/", Header: map[string]string{"X-A": "b"}}
		f, err := Can(t.Context(), tt.ztunnels, func(_ context.Context, k mesh.ServiceKey) ([]Opener, error) {
			if k.String() != "shop/wp.shop.svc.cluster.local" {
				t.Errorf("%s: asked for waypoint %s", tt.sentence, k)
			}
			return tt.waypoints, nil
		}, q)
		says, allowed := "", false
		if err != nil {
			says = "error: " + err.Error()
		} else {
			says, allowed = f.Says, f.Allowed
		}
		if allowed != tt.allowed || !strings.Contains(says, tt.says) {
			t.Errorf("%s: %v, %q; want %v, %q", tt.sentence, allowed, says, tt.allowed, tt.says)
		}
	}
	if _, err := Can(t.Context(), nil, nil, &decision.Question{URL: "http://web"}); err == nil {
		t.Error("a question of nobody was asked")
	}
}

package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/health"
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

func TestTheNewestDecisionBetweenTwoIsFound(t *testing.T) {
	at := time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC)
	client := decision.End{Workload: "shop/client", Address: "10.1.0.5:4000", Identity: "spiffe://cluster.local/ns/shop/sa/client"}
	web := decision.End{Workload: "shop/web-1", Address: "10.1.0.7:15008"}
	story := func(id string, after int, from, to decision.End, asked, service string) decision.Story {
		return decision.Story{ID: id, At: at.Add(time.Duration(after) * time.Second), Source: from, Destination: to, Asked: asked, Service: service}
	}
	proxies := []Opener{
		remembering(t, "one", story("00000001", 1, client, web, "10.96.0.1:80", "shop/web.shop.svc.cluster.local"),
			story("00000002", 2, client, decision.End{}, "10.96.0.2:81", "shop/web.shop.svc.cluster.local"),
			story("00000003", 3, decision.End{Workload: "shop/client-2"}, web, "10.96.0.1:80", "shop/web.shop.svc.cluster.local"),
			story("", 9, client, web, "10.96.0.1:80", "")),
		remembering(t, "two", story("00000001", 1, client, decision.End{Workload: "shop/web-1", Address: "10.1.0.7:8080"}, "10.1.0.7:8080", ""),
			story("00000004", 4, decision.End{Address: "10.1.0.9:5"}, web, "10.1.0.7:8080", "")),
	}
	from := Party{Names: []string{"shop/client"}, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.5")}}
	host := func(h string) Party { return Party{Hosts: []string{h}} }
	for _, tt := range []struct {
		name string
		pair Pair
		want string // ids, or the error
	}{
		{"by a service's name", Pair{Source: from, Destination: host("web.shop"), Port: 80}, "[00000001 00000001]"},
		{"by any port", Pair{Source: from, Destination: host("web.shop.svc.cluster.local")}, "[00000002]"},
		{"by a pod", Pair{Source: from, Destination: Party{Names: []string{"shop/web-1"}}, Port: 8080}, "[00000001 00000001]"},
		{"by an identity", Pair{Source: Party{Identities: []string{client.Identity}}, Destination: host("web.shop"), Port: 81}, "[00000002]"},
		{"by an address", Pair{Source: Party{Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.9")}}, Destination: Party{Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.7")}}}, "[00000004]"},
		{"a name that only begins alike", Pair{Source: from, Destination: host("we"), Text: "a → b"}, "none of the 2 proxies remembers a decision on a → b"},
	} {
		stories, silent, err := Latest(t.Context(), proxies, tt.pair)
		var ids []string
		for _, s := range stories {
			ids = append(ids, s.ID)
		}
		got := fmt.Sprint(ids)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, tt.want) || len(silent) > 0 {
			t.Errorf("%s: %s, silent %v; want %s", tt.name, got, silent, tt.want)
		}
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
	running := []Proxy{{Name: "istio-system/z1", Kind: "ztunnel", Node: "n1"}, {Name: "istio-system/z4", Kind: "ztunnel", Node: "n4"}}
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
	z1 := Proxy{Name: "istio-system/z1", Kind: "ztunnel", Node: "n1"}
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

// deciding is the administration of a proxy that decides with a generation.
func deciding(t *testing.T, generation *atomic.Uint64) Opener {
	t.Helper()
	return serve(t, "proxy", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(health.Proxy{Configuration: generation.Load(), Age: 2500 * time.Millisecond})
	}))
}

func TestAnAcknowledgementIsProvenByWhatTheProxyDecidesWith(t *testing.T) {
	with := func(given uint64) Client {
		c := client("ztunnel", "z1", 9)
		c.Types[1].Given = given
		return c
	}
	silent := func(context.Context) (*reach.Door, error) { return nil, errors.New("pod gone") }
	for _, tt := range []struct {
		sentence string
		client   Client
		decides  uint64
		open     Opener
		missing  string
	}{
		{"it decides with what it was told last", with(8), 8, nil, ""},
		{"it has been told more since", with(8), 9, nil, ""},
		{"it was told nothing on this connection", with(0), 3, nil, ""},
		{"it has acknowledged and not taken", with(8), 7, nil, "ztunnel istio-system/z1 has acknowledged 8 and decides with 7"},
		{"it does not say", with(8), 0, silent, "ztunnel istio-system/z1 does not say what it decides with: pod gone"},
	} {
		p, open := newPlane(t, "istiod", 9, tt.client)
		p.held.Store(held("held", 8))
		d, _ := open(t.Context())
		var generation atomic.Uint64
		generation.Store(tt.decides)
		running := []Proxy{{Name: "istio-system/z1", Kind: "ztunnel", Admin: tt.open}}
		if tt.open == nil {
			running[0].Admin = deciding(t, &generation)
		}
		s, err := Served(t.Context(), []*reach.Door{d}, running, []Version{route})
		if err != nil || strings.Join(s.Missing, "; ") != tt.missing {
			t.Errorf("%s: missing %q, %v; want %q", tt.sentence, s.Missing, err, tt.missing)
		}
		r, err := Status(t.Context(), []Opener{open}, running)
		says := strings.TrimPrefix(tt.missing, "ztunnel istio-system/z1 ")
		if err != nil || r.Proxies[0].Says != says || r.Behind() != (says != "") {
			t.Errorf("%s: status %+v, %v", tt.sentence, r, err)
		}
		if tt.open == nil && (r.Proxies[0].Serves != tt.decides || r.Proxies[0].Age != 3*time.Second) {
			t.Errorf("%s: status %+v", tt.sentence, r.Proxies[0])
		}
	}
}

func TestAProxyThatChangedItsReplicaIsHeldToTheNewOne(t *testing.T) {
	left, joined := client("ztunnel", "z1", 90), client("ztunnel", "z1", 9)
	left.Types[0].Acked, left.Types[1].Acked = 90, 90
	left.Types[0].Given, joined.Types[0].Given = 90, 9
	joined.Connected = time.Now()
	left.Connected = joined.Connected.Add(-time.Minute)
	one, first := newPlane(t, "istiod-1", 90, left)
	two, second := newPlane(t, "istiod-2", 9, joined)
	one.held.Store(held("held", 90))
	two.held.Store(held("held", 9))
	a, _ := first(t.Context())
	b, _ := second(t.Context())
	var generation atomic.Uint64
	generation.Store(9)
	running := []Proxy{{Name: "istio-system/z1", Kind: "ztunnel", Admin: deciding(t, &generation)}}
	for _, replicas := range [][]*reach.Door{{a, b}, {b, a}} {
		if s, err := Served(t.Context(), replicas, running, []Version{route}); err != nil || len(s.Missing) > 0 {
			t.Errorf("missing %v, %v", s, err)
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
	running := []Proxy{{Name: "istio-system/z1", Kind: "ztunnel"}, {Name: "istio-system/z2", Kind: "ztunnel"}}
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
	replicas := func(context.Context) ([]Opener, error) { return []Opener{open}, nil }
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
	if _, err := Await(t.Context(), replicas, running, []Version{route}); err != nil || polls != 4 {
		t.Errorf("after %d looks: %v, want none after 4", polls, err)
	}
	p.at.Store(&Standing{Generation: 9, Clients: []Client{client("ztunnel", "z1", 7)}})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("not served after a while"))
	defer cancel()
	last, err := Await(ctx, replicas, running, []Version{route})
	if err == nil || last == nil || err.Error() != "not served after a while: ztunnel istio-system/z1 has acknowledged 7 of 8" {
		t.Errorf("error %v with %+v", err, last)
	}
}

// TestAwaitGoesOnWithTheReplicasThatAreLeft: one ends while its proxy has not
// acknowledged, which goes over to the other one.
func TestAwaitGoesOnWithTheReplicasThatAreLeft(t *testing.T) {
	one, two := &plane{}, &plane{}
	one.at.Store(&Standing{Generation: 90, Clients: []Client{client("ztunnel", "z1", 7)}})
	two.at.Store(&Standing{Generation: 9})
	one.held.Store(held("held", 90))
	two.held.Store(held("held", 9))
	dying := httptest.NewServer(one)
	first := func(context.Context) (*reach.Door, error) { return &reach.Door{Name: "istiod-1", URL: dying.URL}, nil }
	second := serve(t, "istiod-2", two)
	polls := 0
	running := func(context.Context) ([]Proxy, error) {
		if polls++; polls == 2 {
			dying.Close()
			c := client("ztunnel", "z1", 9)
			c.Types[0].Acked = 9
			two.at.Store(&Standing{Generation: 9, Clients: []Client{c}})
		}
		return []Proxy{{Name: "istio-system/z1", Kind: "ztunnel"}}, nil
	}
	replicas := func(context.Context) ([]Opener, error) {
		if polls < 3 {
			return []Opener{first, second}, nil // the one that has ended is still listed for a moment
		}
		return []Opener{second}, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if s, err := Await(ctx, replicas, running, []Version{route}); err != nil || len(s.Missing) > 0 {
		t.Errorf("after %d looks: %+v, %v", polls, s, err)
	}
}

// TestAwaitHearsOfAReplicaThatHasCome: a proxy goes over to it, though the
// others answer as before.
func TestAwaitHearsOfAReplicaThatHasCome(t *testing.T) {
	one, first := newPlane(t, "istiod-1", 9)
	two, second := newPlane(t, "istiod-2", 3, client("ztunnel", "z1", 3))
	one.held.Store(held("held", 9))
	two.held.Store(held("held", 3))
	looks := 0
	replicas := func(context.Context) ([]Opener, error) {
		if looks++; looks == 1 {
			return []Opener{first}, nil
		}
		return []Opener{first, second}, nil
	}
	running := func(context.Context) ([]Proxy, error) {
		return []Proxy{{Name: "istio-system/z1", Kind: "ztunnel"}}, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if s, err := Await(ctx, replicas, running, []Version{route}); err != nil || len(s.Missing) > 0 {
		t.Errorf("after %d looks: %+v, %v", looks, s, err)
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

// TestWhatAProxyWithoutControlPlaneServes is told with its age, where it tells.
func TestWhatAProxyWithoutControlPlaneServes(t *testing.T) {
	says := func(text string) Opener {
		return serve(t, "z", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/state" {
				w.Write([]byte(text))
			}
		}))
	}
	for text, want := range map[string]string{
		`{"kept":true,"age":"5m0s"}`: notConnected + "; serves what its node had kept, confirmed 5m0s ago",
		`{"kept":false,"age":"10s"}`: notConnected + "; serves what it had 10s ago",
		`not a page of that build`:   notConnected,
	} {
		r, err := Status(t.Context(), nil, []Proxy{{Name: "istio-system/z", Kind: "ztunnel", Admin: says(text)}})
		if err != nil || len(r.Proxies) != 1 || r.Proxies[0].Says != want || !r.Behind() {
			t.Errorf("%s: %+v, %v; want %q", text, r, err, want)
		}
	}
}

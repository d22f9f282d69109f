package exchange

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
	"github.com/ambit-mesh/ambit/waypoint/balance"
	"github.com/ambit-mesh/ambit/waypoint/forward"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// state is a Table made of a model.
type state struct {
	model mesh.Model
	view  *view.View
}

func (s *state) View() *view.View   { return s.view }
func (s *state) Generation() uint64 { return 7 }
func (s *state) Routes(k mesh.ServiceKey, port uint16) *match.Routes {
	var all []*mesh.Route
	for _, r := range s.model.Routes {
		all = append(all, r)
	}
	routes, err := match.Compile(k, port, all)
	if err != nil {
		panic(err)
	}
	return routes
}
func (s *state) Traffic(k mesh.ServiceKey) *mesh.Traffic { return s.model.Traffic[k] }
func (s *state) Policies(mesh.ServiceKey) (set policy.Set) {
	for _, p := range s.model.Policies {
		set.Policies = append(set.Policies, p)
	}
	return set
}
func (s *state) Authentications(mesh.ServiceKey) (list []*mesh.Authentication) {
	for _, a := range s.model.Authentications {
		list = append(list, a)
	}
	return list
}

// rig is an engine with an Exchanger that serves the service "web" and whatever
// is added to its model.
type rig struct {
	t       testing.TB
	mesh    *backendtest.Mesh
	self    *mesh.Workload
	forward *forward.Forwarder
	engine  *Engine
	x       *Exchanger
	at      string
	ring    *decision.Ring

	mu      sync.Mutex
	state   *state
	records []telemetry.Exchange
	arrival Arrival
}

func key(name string) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: "shop", Hostname: name + ".shop.svc.cluster.local"}
}

func newRig(t testing.TB, bounds ...EngineConfig) *rig {
	t.Helper()
	r := &rig{t: t, mesh: backendtest.New(t), ring: decision.NewRing(decision.Config{})}
	r.self = r.mesh.Workload("wp")
	r.state = &state{model: mesh.Model{
		Workloads: map[string]*mesh.Workload{}, Services: map[mesh.ServiceKey]*mesh.Service{}, Routes: map[mesh.RouteKey]*mesh.Route{},
		Traffic: map[mesh.ServiceKey]*mesh.Traffic{}, Policies: map[mesh.PolicyKey]*mesh.Policy{}, Authentications: map[mesh.PolicyKey]*mesh.Authentication{},
	}}
	r.forward = forward.New(forward.Config{Credentials: r.mesh.Certs, Self: func() *mesh.Workload { return r.self }})
	x := New(Config{
		Table: func() Table { r.mu.Lock(); defer r.mu.Unlock(); return r.state },
		Self:  func() *mesh.Workload { return r.self }, Balancer: balance.NewBalancer(), Forward: r.forward, Decisions: r.ring,
		Record: func(e *telemetry.Exchange) { r.mu.Lock(); defer r.mu.Unlock(); r.records = append(r.records, *e) },
	})
	bound := EngineConfig{}
	if len(bounds) > 0 {
		bound = bounds[0]
	}
	bound.Handler = x
	r.x, r.engine = x, NewEngine(bound)
	r.arrival = Arrival{
		Peer: certstest.ID("shop", "client"), Source: netip.MustParseAddrPort("10.1.0.5:4000"),
		Dialled: netip.MustParseAddrPort("10.96.0.1:80"), Service: key("web"), Port: 80,
	}
	r.listen()
	t.Cleanup(func() { r.engine.Close(); x.Close(); r.forward.Close() })
	return r
}

// listen accepts what terminate would hand over.
func (r *rig) listen() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.at = l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			a := r.arrival
			r.mu.Unlock()
			serving.Go(func() { r.engine.Serve(c, &a) })
		}
	})
	r.t.Cleanup(func() { l.Close(); serving.Wait() })
}

// service adds a service with endpoints.
func (r *rig) service(name string, app mesh.AppProtocol, pods ...*backendtest.Pod) {
	k := key(name)
	r.state.model.Services[k] = &mesh.Service{
		Name: name, Namespace: "shop", Hostname: k.Hostname, Ports: []mesh.Port{{Service: 80, Target: backendtest.AppPort, App: app}},
	}
	for _, p := range pods {
		w := *p.Workload
		w.Services = map[mesh.ServiceKey][]mesh.Port{k: {{Service: 80, Target: backendtest.AppPort}}}
		r.state.model.Workloads[w.UID] = &w
	}
	r.publish()
}

func (r *rig) publish() {
	s := view.NewStore()
	s.Replace(r.state.model)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = &state{r.state.model, s.View()}
}

// pod starts a pod of the mesh.
func (r *rig) pod(name string, serve func(net.Listener)) *backendtest.Pod {
	return r.mesh.Pod(name, spiffe.ID{}, serve)
}

// rules attaches an HTTPRoute to web.
func (r *rig) rules(rules ...mesh.RouteRule) {
	for i := range rules {
		rules[i].Index = i
	}
	k := mesh.RouteKey{Kind: mesh.RouteHTTP, Namespace: "shop", Name: "route"}
	r.state.model.Routes[k] = &mesh.Route{Key: k, Parents: []mesh.RouteParent{{Service: key("web")}}, Rules: rules}
	r.publish()
}

func to(name string, weight uint32) mesh.Backend {
	return mesh.Backend{Service: key(name), Port: 80, Weight: weight}
}

// client speaks HTTP/1.1 or HTTP/2 with the rig.
func (r *rig) client(two bool) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.at)
		},
		Protocols: new(http.Protocols), DisableCompression: true, ExpectContinueTimeout: 10 * time.Second,
	}
	transport.Protocols.SetHTTP1(!two)
	transport.Protocols.SetUnencryptedHTTP2(two)
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// do sends "METHOD /path" with header lines and a body, and gives the answer
// with its body.
func (r *rig) do(two bool, line, body string, header ...string) (*http.Response, string) {
	r.t.Helper()
	method, path, _ := strings.Cut(line, " ")
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(backendtest.Within(r.t), method, "http://web"+path, reader)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Add(k, v)
	}
	resp, err := r.client(two).Do(req)
	if err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	return resp, string(b)
}

// last is the record of the last request.
func (r *rig) last() telemetry.Exchange {
	r.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		n := len(r.records)
		r.mu.Unlock()
		if n > 0 {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.records) == 0 {
		r.t.Fatal("no record was written")
	}
	return r.records[len(r.records)-1]
}

// raw sends bytes as they are and gives everything that comes until the end.
func (r *rig) raw(text string) string {
	r.t.Helper()
	c, err := net.Dial("tcp", r.at)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, text)
	c.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(bufio.NewReader(c))
	return string(b)
}

// both runs a test in both versions.
func both(t *testing.T, f func(t *testing.T, two bool)) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/%d", 1+map[bool]int{true: 1}[two]), func(t *testing.T) { f(t, two) })
	}
}

package waypoint

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/admin/admintest"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
	"github.com/ambit-mesh/ambit/waypoint/table"
)

// running is a waypoint of the Gateway "wp" on free ports.
type running struct {
	t      *testing.T
	mesh   *backendtest.Mesh
	model  mesh.Model
	self   *mesh.Workload
	config Config
	stop   context.CancelFunc
	done   chan error
}

func key(name string) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: "shop", Hostname: name + ".shop.svc.cluster.local"}
}

func run(t *testing.T, options ...func(*Config)) *running {
	t.Helper()
	r := &running{t: t, mesh: backendtest.New(t), done: make(chan error, 1)}
	r.self = r.mesh.Workload("wp-1")
	r.self.ServiceAccount = "wp"
	r.model = mesh.Model{Workloads: map[string]*mesh.Workload{}, Services: map[mesh.ServiceKey]*mesh.Service{}}
	r.config = Config{
		Self:  Self{Name: "wp-1", Namespace: "shop", ServiceAccount: "wp", Gateway: "wp"},
		Store: table.NewStore(key("wp")), Authority: r.mesh.CA, Listen: r.self.Addresses[0].String(),
		AdminPort: admintest.FreePort(t), MetricsPort: admintest.FreePort(t), ReadyPort: admintest.FreePort(t), DrainDeadline: 10 * time.Second,
	}
	for _, o := range options {
		o(&r.config)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.done <- Run(ctx, r.config) }()
	t.Cleanup(func() { cancel(); admintest.Ends(t, r.done, "") })
	return r
}

// until waits for an answer of a port beside the data plane.
func (r *running) until(port uint16, path string, status int, contains string) string {
	r.t.Helper()
	return admintest.Until(r.t, port, path, status, contains)
}

// knows makes the model the waypoint's configuration, with a service "web" and
// the waypoint's own record.
func (r *running) knows(pods ...*backendtest.Pod) {
	k := key("web")
	r.model.Services[k] = &mesh.Service{
		Name: "web", Namespace: "shop", Hostname: k.Hostname, Waypoint: mesh.GatewayAddress{Service: key("wp")},
		Ports:     []mesh.Port{{Service: 80, Target: backendtest.AppPort, App: mesh.AppHTTP11}},
		Addresses: []mesh.NetworkPrefix{{Prefix: netip.MustParsePrefix("10.96.0.1/32")}},
	}
	r.model.Workloads[r.self.UID] = r.self
	for _, p := range pods {
		p.Services = map[mesh.ServiceKey][]mesh.Port{k: {{Service: 80, Target: backendtest.AppPort}}}
		r.model.Workloads[p.UID] = p.Workload
	}
	r.config.Store.Replace(r.model)
}

// client is a client's HTTP, by a tunnel to the waypoint.
func (r *running) client() *http.Client {
	r.t.Helper()
	tunnel, err := h2.NewDialer(h2.Config{Credentials: r.mesh.Certs}).Dial(backendtest.Within(r.t), hbone.Target{
		Address: netip.AddrPortFrom(r.self.Addresses[0], hbone.Port), Self: certstest.ID("shop", "client"), Accept: []spiffe.ID{r.self.Identity()},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { tunnel.Close() })
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		s, _, err := tunnel.Open(ctx, hbone.Request{Authority: "10.96.0.1:80"})
		if err != nil {
			return nil, err
		}
		return hbone.NewConn(s, netip.AddrPort{}, netip.AddrPort{}), nil
	}}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func TestItServesOnceItKnowsItselfAndHasACertificate(t *testing.T) {
	r := run(t)
	r.until(r.config.ReadyPort, "/healthz/ready", 500, "own certificate")
	if c, err := net.Dial("tcp", r.config.Listen+":15008"); err == nil {
		c.Close()
		t.Error("it accepts before it is ready")
	}
	release := r.mesh.CA.Block()
	r.knows(r.mesh.Pod("web-1", spiffe.ID{}, backendtest.Named("web-1")))
	r.until(r.config.ReadyPort, "/healthz/ready", 500, "own certificate")
	release()
	r.until(r.config.ReadyPort, "/healthz/ready", 200, "")
	resp, err := r.client().Get("http://web/path")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(b) != "web-1" {
		t.Errorf("%s %q", resp.Status, b)
	}
	r.until(r.config.MetricsPort, "/stats/prometheus", 200, "istio_requests_total{")
	r.until(r.config.MetricsPort, "/stats/prometheus", 200, "ambit_tunnels_open 1")
	r.until(r.config.AdminPort, "/config_dump", 200, "shop/web.shop.svc.cluster.local")
}

func TestRequestsUnderWayEndBeforeTheWaypointDoes(t *testing.T) {
	r := run(t)
	asked, release := make(chan bool, 1), make(chan bool)
	r.knows(r.mesh.Pod("web-1", spiffe.ID{}, backendtest.HTTP(func(w http.ResponseWriter, _ *http.Request) {
		asked <- true
		<-release
		io.WriteString(w, "late")
	})))
	r.until(r.config.ReadyPort, "/healthz/ready", 200, "")
	answer := make(chan string, 1)
	go func() {
		resp, err := r.client().Get("http://web/")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		answer <- fmt.Sprint(string(b), err)
	}()
	<-asked
	r.stop()
	r.until(r.config.ReadyPort, "/healthz/ready", 500, "shutting down")
	close(release)
	if got := <-answer; got != "late<nil>" {
		t.Errorf("answer %q", got)
	}
	admintest.Ends(t, r.done, "")
}

func TestWhatIsLeftAtTheDeadlineIsCut(t *testing.T) {
	r := run(t, func(c *Config) { c.DrainDeadline = 50 * time.Millisecond })
	asked := make(chan bool, 1)
	r.knows(r.mesh.Pod("web-1", spiffe.ID{}, backendtest.HTTP(func(_ http.ResponseWriter, q *http.Request) {
		asked <- true
		<-q.Context().Done()
	})))
	r.until(r.config.ReadyPort, "/healthz/ready", 200, "")
	cut := make(chan error, 1)
	go func() { _, err := r.client().Get("http://web/"); cut <- err }()
	<-asked
	r.stop()
	if err := <-cut; err == nil {
		t.Error("a request that never ends got an answer")
	}
	admintest.Ends(t, r.done, "")
}

func TestWhatCannotWorkIsToldAtOnce(t *testing.T) {
	port := admintest.TakenPort(t)
	for _, c := range []struct {
		name, want string
		spoil      func(*Config)
	}{
		{"no Gateway", "Gateway", func(c *Config) { c.Self.Gateway = "" }},
		{"no control plane", "no control plane", func(c *Config) { c.Store = nil }},
		{"no CA", "no certificate authority", func(c *Config) { c.Authority = nil }},
		{"the admin port is taken", "address already in use", func(c *Config) { c.AdminPort = port }},
		{"the metrics port is taken", "address already in use", func(c *Config) { c.MetricsPort = port }},
		{"the readiness port is taken", "address already in use", func(c *Config) { c.ReadyPort = port }},
	} {
		config := Config{
			Self: Self{Name: "wp-1", Namespace: "shop", ServiceAccount: "wp", Gateway: "wp"}, Store: table.NewStore(key("wp")),
			Authority: certstest.New(t), AdminPort: admintest.FreePort(t), MetricsPort: admintest.FreePort(t), ReadyPort: admintest.FreePort(t),
		}
		c.spoil(&config)
		done := make(chan error, 1)
		go func() { done <- Run(t.Context(), config) }()
		admintest.Ends(t, done, c.want)
	}
}

func TestAServiceThatLeavesIsServedByItsOldPoliciesForAWhile(t *testing.T) {
	r := run(t)
	k := mesh.PolicyKey{Namespace: "shop", Name: "no-deletes"}
	r.model.Policies = map[mesh.PolicyKey]*mesh.Policy{k: {
		Key: k, Scope: mesh.ScopeTargets, Action: mesh.ActionDeny, Targets: []mesh.Target{{Service: key("web")}},
		Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{HTTP: &mesh.HTTPMatch{Methods: []mesh.StringMatch{{Value: "DELETE"}}}}}}}}},
	}}
	r.knows(r.mesh.Pod("web-1", spiffe.ID{}, backendtest.Named("web-1")))
	r.until(r.config.ReadyPort, "/healthz/ready", 200, "")
	ask := func(c *http.Client, method string) *http.Response {
		t.Helper()
		req, _ := http.NewRequest(method, "http://web/", nil)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp
	}
	old := r.client()
	if resp := ask(old, "GET"); resp.StatusCode != 200 || resp.Close {
		t.Errorf("%s, close %v", resp.Status, resp.Close)
	}
	web := *r.model.Services[key("web")]
	web.Waypoint = mesh.GatewayAddress{}
	r.model.Services[key("web")] = &web
	r.model.Policies = nil // nobody sends policies of what is not served
	r.config.Store.Replace(r.model)
	for name, c := range map[string]*http.Client{"an old connection": old, "a new connection": r.client()} {
		if resp := ask(c, "GET"); resp.StatusCode != 200 || !resp.Close {
			t.Errorf("%s: %s, close %v", name, resp.Status, resp.Close)
		}
		if resp := ask(c, "DELETE"); resp.StatusCode != 403 {
			t.Errorf("%s: a request that was denied: %s", name, resp.Status)
		}
	}
}

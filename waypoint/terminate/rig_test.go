package terminate

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
	"github.com/ambit-mesh/ambit/waypoint/balance"
	"github.com/ambit-mesh/ambit/waypoint/exchange"
	"github.com/ambit-mesh/ambit/waypoint/forward"
	"github.com/ambit-mesh/ambit/waypoint/table"
)

// rig is a waypoint "wp" behind a real tunnel of the client "client".
type rig struct {
	t      testing.TB
	mesh   *backendtest.Mesh
	self   *mesh.Workload
	model  mesh.Model
	store  *table.Store
	term   *Terminator
	tunnel hbone.Tunnel
	log    locked

	mu       sync.Mutex
	requests []telemetry.Exchange
}

// locked is a log that many write.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *locked) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func key(name string) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: "shop", Hostname: name + ".shop.svc.cluster.local"}
}

var client = certstest.ID("shop", "client")

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, mesh: backendtest.New(t), store: table.NewStore(key("wp"))}
	r.self = r.mesh.Workload("wp")
	r.model = mesh.Model{
		Workloads: map[string]*mesh.Workload{r.self.UID: r.self}, Services: map[mesh.ServiceKey]*mesh.Service{},
		Routes: map[mesh.RouteKey]*mesh.Route{}, Policies: map[mesh.PolicyKey]*mesh.Policy{},
	}
	self := func() *mesh.Workload { return r.self }
	balancer := balance.NewBalancer()
	f := forward.New(forward.Config{Credentials: r.mesh.Certs, Self: self})
	x := exchange.New(exchange.Config{
		Table: func() exchange.Table { return r.store.Table() }, Self: self, Balancer: balancer, Forward: f,
		Record: func(e *telemetry.Exchange) { r.mu.Lock(); defer r.mu.Unlock(); r.requests = append(r.requests, *e) },
	})
	engine := exchange.NewEngine(exchange.EngineConfig{Handler: x})
	r.term = New(Config{
		Table: func() Table { return r.store.Table() }, Gateway: key("wp"), Self: self, HTTP: engine, Balancer: balancer, Forward: f,
		Recorder: telemetry.NewRecorder(telemetry.NewTraffic(telemetry.TrafficConfig{}), slog.New(slog.NewTextHandler(&r.log, nil))),
		DryRuns:  telemetry.NewDryRuns(slog.New(slog.NewTextHandler(&r.log, nil))), Patience: 50 * time.Millisecond, Decisions: decision.NewRing(decision.Config{}),
	})
	r.serve()
	t.Cleanup(func() { engine.Close(); x.Close(); f.Close() })
	return r
}

func (r *rig) serve() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	server := h2.NewServer(h2.ServerConfig{
		Listener: l, Credentials: r.mesh.Certs, Handler: r.term.Tunnel, Refused: r.term.Refused,
		Self: func(context.Context) (spiffe.ID, error) { return r.self.Identity(), nil },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { server.Serve(ctx) })
	r.t.Cleanup(func() { cancel(); served.Wait() })
	dialer := h2.NewDialer(h2.Config{Credentials: r.mesh.Certs})
	r.tunnel, err = dialer.Dial(backendtest.Within(r.t), hbone.Target{
		Address: netip.MustParseAddrPort(l.Addr().String()), Self: client, Accept: []spiffe.ID{r.self.Identity()},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.tunnel.Close() })
}

// service adds a service at 10.96.0.n, port 80, that uses the waypoint.
func (r *rig) service(name string, n byte, app mesh.AppProtocol, pods ...*backendtest.Pod) *mesh.Service {
	k := key(name)
	s := &mesh.Service{
		Name: name, Namespace: "shop", Hostname: k.Hostname, Ports: []mesh.Port{{Service: 80, Target: backendtest.AppPort, App: app}},
		Addresses: []mesh.NetworkPrefix{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, 0, n}), 32)}},
		Waypoint:  mesh.GatewayAddress{Service: key("wp"), Port: 15008},
	}
	r.model.Services[k] = s
	for _, p := range pods {
		w := *p.Workload
		w.Services = map[mesh.ServiceKey][]mesh.Port{k: {{Service: 80, Target: backendtest.AppPort}}}
		if known := r.model.Workloads[w.UID]; known != nil {
			maps.Copy(w.Services, known.Services)
		}
		r.model.Workloads[w.UID] = &w
	}
	r.store.Replace(r.model)
	return s
}

func (r *rig) pod(name string, serve func(net.Listener)) *backendtest.Pod {
	return r.mesh.Pod(name, spiffe.ID{}, serve)
}

func (r *rig) open(authority string) (hbone.Stream, error) {
	s, _, err := r.tunnel.Open(backendtest.Within(r.t), hbone.Request{Authority: authority, Header: map[string]string{
		hbone.HeaderBaggage: "k8s.namespace.name=shop,service.name=client",
	}})
	if err == nil {
		s.SetReadDeadline(time.Now().Add(20 * time.Second))
		r.t.Cleanup(func() { s.Close() })
	}
	return s, err
}

func (r *rig) mustOpen(authority string) hbone.Stream {
	r.t.Helper()
	s, err := r.open(authority)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// get asks in HTTP/1.1 and gives the answer with its body.
func (r *rig) get(s hbone.Stream, path string) string {
	r.t.Helper()
	io.WriteString(s, "GET "+path+" HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
	b, err := io.ReadAll(s)
	if err != nil {
		r.t.Errorf("reading the answer: %v after %q", err, b)
	}
	return string(b)
}

func (r *rig) logs(want string) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if strings.Contains(r.log.String(), want) {
			return
		}
	}
	r.t.Errorf("nothing says %q in\n%s", want, r.log.String())
}

// echo answers each piece in capitals, and half-closes after the client.
func echo(c *net.TCPConn) {
	defer c.Close()
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		c.Write(bytes.ToUpper(b[:n]))
		if err != nil {
			return
		}
	}
}

// greeter speaks first.
func greeter(c *net.TCPConn) {
	io.WriteString(c, "220 ready\r\n")
	echo(c)
}

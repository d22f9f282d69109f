package outbound

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/dump"
)

const world = `
workloads:
- {uid: k//Pod/shop/client, name: client, namespace: shop, serviceAccount: client, workloadIps: [10.1.0.5], protocol: HBONE, canonicalName: client, workloadName: client}
- {uid: k//Pod/shop/a, name: a, namespace: shop, serviceAccount: web, workloadIps: [10.1.0.6], protocol: HBONE, services: {shop/web.shop.svc: {80: 8080}}}
- {uid: k//Pod/shop/b, name: b, namespace: shop, serviceAccount: web, workloadIps: [10.1.0.7], protocol: HBONE, services: {shop/web.shop.svc: {80: 8080}}}
- {uid: k//Pod/shop/plain, name: plain, namespace: shop, workloadIps: [10.1.0.8], protocol: TCP, services: {shop/plain.shop.svc: {80: 8080}}}
- {uid: k//Pod/shop/behind, name: behind, namespace: shop, workloadIps: [10.1.0.9], protocol: HBONE, waypoint: {destination: shop/gone.shop.svc, hboneMtlsPort: 15008}}
- {uid: k/ServiceEntry/eu, name: eu, namespace: shop, hostname: eu.example.com, protocol: TCP, services: {shop/api.example.com: {443: 8443}}}
- {uid: k/ServiceEntry/us, name: us, namespace: shop, hostname: us.example.com, protocol: TCP, services: {shop/api.example.com: {443: 8443}}}
- {uid: k/ServiceEntry/gone, name: gone, namespace: shop, hostname: gone.example.com, protocol: TCP, services: {shop/gone.example.com: {443: 443}}}
services:
- {name: api, namespace: shop, hostname: api.example.com, vips: [/240.240.0.1], ports: {443: 8443}}
- {name: gone, namespace: shop, hostname: gone.example.com, vips: [/240.240.0.2], ports: {443: 443}}
- {name: web, namespace: shop, hostname: web.shop.svc, vips: [/10.96.0.1], ports: {80: 8080}}
- {name: plain, namespace: shop, hostname: plain.shop.svc, vips: [/10.96.0.2], ports: {80: 8080}}
- {name: empty, namespace: shop, hostname: empty.shop.svc, vips: [/10.96.0.3], ports: {80: 8080}}
`

// tunnels is a fake pool: it answers by address.
type tunnels struct {
	mu     sync.Mutex
	answer map[string]error // by tunnel address; nil carries an echo
	heals  int              // after so many questions every answer is good; 0 never
	silent map[string]bool  // tunnel addresses that never answer
	asked  []string
	last   hbone.Request
	target hbone.Target
}

func (f *tunnels) Open(ctx context.Context, t hbone.Target, r hbone.Request) (hbone.Stream, hbone.Response, hbone.Peer, error) {
	if f.silent[t.Address.String()] {
		<-ctx.Done()
		return nil, hbone.Response{}, hbone.Peer{}, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, t.Address.String())
	f.last, f.target = r, t
	if err := f.answer[t.Address.String()]; err != nil && (f.heals == 0 || len(f.asked) <= f.heals) {
		return nil, hbone.Response{}, hbone.Peer{}, err
	}
	near, far := net.Pipe()
	go func() { defer far.Close(); io.Copy(far, far) }()
	return &pipeStream{Conn: near}, hbone.Response{Status: 200, Header: map[string]string{hbone.HeaderReason: "allowed by test"}}, hbone.Peer{ID: t.Accept[0]}, nil
}

// pipeStream is a hbone.Stream whose half-close ends it, which suffices for
// an echo.
type pipeStream struct{ net.Conn }

func (s *pipeStream) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(s.Conn, struct{ io.Reader }{r})
}
func (s *pipeStream) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, s.Conn)
}
func (s *pipeStream) CloseWrite() error { return s.Conn.Close() }
func (s *pipeStream) Reset() error      { return s.Conn.Close() }
func (s *pipeStream) SendDatagram(context.Context, []byte) error {
	return hbone.ErrNoDatagrams
}
func (s *pipeStream) ReceiveDatagram(context.Context) ([]byte, error) {
	return nil, hbone.ErrNoDatagrams
}

// rig is an Outbound with a fake pool and a plain echo server behind every
// plain address.
type rig struct {
	t       *testing.T
	out     *Outbound
	tunnels *tunnels
	refuse  map[string]bool // plain addresses
	dialled []string
	log     bytes.Buffer
	live    connections.Set
}

func newRig(t *testing.T) *rig {
	t.Helper()
	model, err := dump.ParseLocal([]byte(world))
	if err != nil {
		t.Fatal(err)
	}
	store := view.NewStore()
	store.Replace(model)
	r := &rig{t: t, tunnels: &tunnels{answer: map[string]error{}}, refuse: map[string]bool{}}
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { echo.Close() })
	go func() {
		for c, err := echo.Accept(); err == nil; c, err = echo.Accept() {
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	r.out = New(Config{
		Store: store, Tunnels: r.tunnels, Connections: &r.live, Decisions: decision.NewRing(decision.Config{}),
		LocalTimeout: 50 * time.Millisecond, Bridge: 10 * time.Second, WaypointTimeout: 50 * time.Millisecond,
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			at := map[string][]netip.Addr{
				"eu.example.com": {netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
				"us.example.com": {netip.MustParseAddr("192.0.2.3")},
			}[host]
			if at == nil {
				return nil, errors.New("resolving " + host + ": no such name")
			}
			return at, nil
		},
		Local: func(ctx context.Context) (*mesh.Workload, error) { return store.Local(ctx, "shop", "client", "client") },
		Dial: func(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
			r.dialled = append(r.dialled, to.String())
			if r.refuse[to.String()] {
				return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
			}
			return linux.DialTCP(ctx, nil, linux.AddrPort(echo.Addr()), linux.DialOptions{})
		},
		Recorder: telemetry.NewRecorder(telemetry.NewTraffic(telemetry.TrafficConfig{}), slog.New(slog.NewJSONHandler(&r.log, nil))),
	})
	return r
}

// send makes a captured connection to dst, sends text and gives what came back.
func (r *rig) send(dst, text string) (string, error) {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	app, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer app.Close()
	captured, err := l.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	r.out.OriginalDst = func(*net.TCPConn) (netip.AddrPort, error) { return netip.ParseAddrPort(dst) }
	handled := make(chan struct{})
	go func() {
		defer close(handled)
		r.out.Handle(r.t.Context(), captured.(*net.TCPConn))
	}()
	defer func() { app.Close(); <-handled }()
	if _, err := io.WriteString(app, text); err != nil {
		return "", err // a reset is told once, to whoever asks first
	}
	b := make([]byte, len(text))
	_, err = io.ReadFull(app, b)
	return string(b), err
}

func (r *rig) record() map[string]any {
	r.t.Helper()
	var out map[string]any
	if err := json.Unmarshal(r.log.Bytes(), &out); err != nil {
		r.t.Fatalf("want one record: %v in %s", err, r.log.String())
	}
	return out
}

func status(code int, reason string) error {
	return &hbone.StatusError{Response: hbone.Response{Status: code, Header: map[string]string{hbone.HeaderReason: reason}}}
}

func TestEndpointsThatAreKnownByNameAreLookedUp(t *testing.T) {
	for _, c := range []struct {
		name, dst string
		refuse    []string
		dialled   []string // one of these
		logs      string   // empty: carried
	}{
		{"an address of the name, of the family that was dialled", "240.240.0.1:443", nil, []string{"192.0.2.1:8443", "192.0.2.3:8443"}, ""},
		{"the name's next address", "240.240.0.1:443", []string{"192.0.2.1:8443", "192.0.2.3:8443"}, []string{
			"192.0.2.1:8443 192.0.2.2:8443", "192.0.2.3:8443 192.0.2.1:8443 192.0.2.2:8443"}, ""},
		{"another name's, when all of one fail", "240.240.0.1:443", []string{"192.0.2.1:8443", "192.0.2.2:8443", "[2001:db8::1]:8443"}, []string{
			"192.0.2.3:8443", "192.0.2.1:8443 192.0.2.2:8443 [2001:db8::1]:8443 192.0.2.3:8443"}, ""},
		{"a name that nobody knows", "240.240.0.2:443", nil, []string{""}, "connecting to gone.example.com:443: resolving gone.example.com: no such name"},
	} {
		for range 10 {
			r := newRig(t)
			for _, at := range c.refuse {
				r.refuse[at] = true
			}
			got, err := r.send(c.dst, "hello")
			if carried := err == nil && got == "hello"; carried != (c.logs == "") {
				t.Errorf("%s: %q, %v", c.name, got, err)
			}
			if dialled := strings.Join(r.dialled, " "); !slices.Contains(c.dialled, dialled) {
				t.Errorf("%s: dialled %q", c.name, dialled)
			}
			if rec := r.record(); c.logs != "" && rec["error"] != c.logs {
				t.Errorf("%s: record %v", c.name, rec)
			} else if c.logs == "" && rec["dst.addr"] != r.dialled[len(r.dialled)-1] {
				t.Errorf("%s: the record says %v", c.name, rec["dst.addr"])
			}
		}
	}
}

func TestWhereConnectionsGo(t *testing.T) {
	webA, webB := "10.1.0.6:15008", "10.1.0.7:15008"
	for _, c := range []struct {
		name    string
		dst     string
		answer  map[string]error
		refuse  []string
		tunnels int // asked; 0 none
		heals   int
		dialled []string
		flag    string // empty: carried
		logs    string
	}{
		{name: "a pod of the mesh is reached by tunnel", dst: "10.1.0.6:8080", tunnels: 1, logs: `allowed by test`},
		{name: "a service is reached by a tunnel to one of its pods", dst: "10.96.0.1:80", tunnels: 1},
		{name: "a pod outside of the mesh is reached plainly", dst: "10.1.0.8:8080", dialled: []string{"10.1.0.8:8080"}},
		{name: "a plain service likewise, at its target port", dst: "10.96.0.2:80", dialled: []string{"10.1.0.8:8080"}},
		{name: "what is unknown is passed through", dst: "192.0.2.1:443", dialled: []string{"192.0.2.1:443"}},
		{name: "a passed through connection is tried once", dst: "192.0.2.1:443", refuse: []string{"192.0.2.1:443"}, dialled: []string{"192.0.2.1:443"}, flag: "ERROR", logs: "connection refused"},
		{
			name: "an endpoint that cannot be reached is replaced", dst: "10.96.0.1:80", tunnels: 2,
			answer: map[string]error{webA: errors.New("no route")},
		},
		{
			name: "a tunnel that was lost is opened again, once", dst: "10.1.0.6:8080", tunnels: 2, flag: "ERROR", logs: "tunnel lost",
			answer: map[string]error{webA: fmt.Errorf("%w: tunnel lost", hbone.ErrReset)},
		},
		{
			name: "when none can be reached the last error is told", dst: "10.96.0.1:80", tunnels: 2, flag: "ERROR", logs: "no route",
			answer: map[string]error{webA: errors.New("no route"), webB: errors.New("no route")},
		},
		{
			name: "an application that does not accept is replaced", dst: "10.96.0.1:80", tunnels: 2, flag: "ERROR", logs: "503",
			answer: map[string]error{webA: status(503, "x"), webB: status(503, "x")},
		},
		{
			name: "a refusal by policy is final and says which", dst: "10.96.0.1:80", tunnels: 1, flag: "ERROR", logs: "denied by DENY policy shop/no rule 0",
			answer: map[string]error{webA: status(401, "denied by DENY policy shop/no rule 0"), webB: status(401, "denied by DENY policy shop/no rule 0")},
		},
		{
			name: "an application outside of the mesh that refuses is not waited for", dst: "10.96.0.2:80", refuse: []string{"10.1.0.8:8080"},
			dialled: []string{"10.1.0.8:8080"}, flag: "ERROR", logs: "connection refused",
		},
		{
			name: "node proxies that are being started again are waited for", dst: "10.96.0.1:80", tunnels: 5, heals: 4, logs: "allowed by test",
			answer: map[string]error{webA: fmt.Errorf("dial: %w", syscall.ECONNREFUSED), webB: fmt.Errorf("handshake: %w", io.EOF)},
		},
		{name: "a service without endpoints is refused", dst: "10.96.0.3:80", flag: "ERROR", logs: "no endpoint"},
		{name: "a waypoint that is missing is not skipped", dst: "10.1.0.9:80", flag: "ERROR", logs: "waypoint shop/gone.shop.svc: its service is not known here; waited 50ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			for at, err := range c.answer {
				r.tunnels.answer[at] = err
			}
			for _, at := range c.refuse {
				r.refuse[at] = true
			}
			// The endpoint is chosen at random: where one of two fails, a
			// connection that meets the other first proves nothing.
			var got string
			var err error
			for range 100 {
				r.tunnels.asked, r.dialled, r.tunnels.heals = nil, nil, c.heals
				r.log.Reset()
				got, err = r.send(c.dst, "hello")
				if len(r.tunnels.asked) == c.tunnels {
					break
				}
			}
			if carried := err == nil && got == "hello"; carried != (c.flag == "") {
				t.Errorf("got %q, %v", got, err)
			}
			if c.flag != "" && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("the application saw %v, want a reset", err)
			}
			if len(r.tunnels.asked) != c.tunnels {
				t.Errorf("tunnels to %v, want %d", r.tunnels.asked, c.tunnels)
			}
			if d := cmp.Diff(c.dialled, r.dialled); d != "" {
				t.Errorf("dialled (-want +got):\n%s", d)
			}
			if rec := r.record(); rec["level"] == "ERROR" != (c.flag != "") || !strings.Contains(r.log.String(), c.logs) {
				t.Errorf("record %v, want %q in it", rec, c.logs)
			}
			if r.live.Len() != 0 {
				t.Error("a connection is still tracked")
			}
		})
	}
}

// TestAnEndpointThatSaysNothingIsLeftEarlierWhereThereAreOthers.
func TestAnEndpointThatSaysNothingIsLeftEarlierWhereThereAreOthers(t *testing.T) {
	for _, tt := range []struct {
		sentence, dst string
		try, connect  time.Duration
		carried       bool
	}{
		{"one of two is given up early, and the other carries", "10.96.0.1:80", time.Millisecond, time.Hour, true},
		{"the only one has all the time of an attempt", "10.1.0.6:8080", time.Hour, time.Millisecond, false},
	} {
		r := newRig(t)
		r.tunnels.silent = map[string]bool{"10.1.0.6:15008": true}
		r.out.TryTimeout, r.out.ConnectTimeout = tt.try, tt.connect
		if _, err := r.send(tt.dst, "hello"); (err == nil) != tt.carried {
			t.Errorf("%s: %v", tt.sentence, err)
		}
	}
}

func TestTheConnectSaysWhoAsksForWhat(t *testing.T) {
	r := newRig(t)
	if _, err := r.send("10.96.0.1:80", "x"); err != nil {
		t.Fatal(err)
	}
	web := spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"}
	client := spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "client"}
	if r.tunnels.target.Self != client || !cmp.Equal(r.tunnels.target.Accept, []spiffe.ID{web}) || !strings.HasPrefix(r.tunnels.target.Workload, "k//Pod/shop/") {
		t.Errorf("target %+v", r.tunnels.target)
	}
	if a := r.tunnels.last.Authority; !regexp.MustCompile(`^10\.1\.0\.[67]:8080$`).MatchString(a) {
		t.Errorf("authority %q, want the pod's address and target port", a)
	}
	for name, want := range map[string]string{
		"baggage":     `^k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=client,service.name=client$`,
		"forwarded":   `^for="127.0.0.1:\d+";host=web.shop.svc$`,
		"traceparent": `^00-[0-9a-f]{32}-[0-9a-f]{16}-00$`,
	} {
		if got := r.tunnels.last.Header[name]; !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s %q, want %s", name, got, want)
		}
	}
	rec := r.record()
	for key, want := range map[string]any{
		"src.identity": client.String(), "dst.identity": web.String(), "dst.service": "web.shop.svc", "direction": "outbound",
		"bytes_sent": 1.0, "reason": "allowed by test",
	} {
		if rec[key] != want {
			t.Errorf("record has %s=%v, want %v", key, rec[key], want)
		}
	}
}

func TestAConnectionToTheProxysOwnPortIsRefused(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	app, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	captured, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	r.out.Handle(t.Context(), captured.(*net.TCPConn)) // nobody redirected it
	if len(r.dialled)+len(r.tunnels.asked) > 0 {
		t.Errorf("it was passed on to %v%v", r.dialled, r.tunnels.asked)
	}
	if !strings.Contains(r.log.String(), "proxy's own port") {
		t.Errorf("log %s", r.log.String())
	}
}

func TestAPodWhoseRecordHasNotComeGetsNoConnection(t *testing.T) {
	r := newRig(t)
	r.out.Local = func(ctx context.Context) (*mesh.Workload, error) {
		return r.out.Store.Local(ctx, "shop", "nobody", "nobody")
	}
	start := time.Now()
	if _, err := r.send("192.0.2.1:443", "x"); err == nil {
		t.Error("carried")
	}
	if waited := time.Since(start); waited < 50*time.Millisecond {
		t.Errorf("gave up after %v, without waiting", waited)
	}
	if len(r.dialled) > 0 {
		t.Errorf("dialled %v", r.dialled)
	}
}

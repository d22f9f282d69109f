package inbound

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/dump"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

const world = `
workloads:
- {uid: k//Pod/shop/client, name: client, namespace: shop, serviceAccount: client, workloadIps: [10.1.0.5], protocol: HBONE}
- {uid: k//Pod/shop/web, name: web, namespace: shop, serviceAccount: web, workloadIps: [10.1.0.6], protocol: HBONE, services: {shop/web.shop.svc: {80: 8080}, shop/web-v1.shop.svc: {80: 8080}}, authorizationPolicies: [POLICIES]}
services:
- {name: web, namespace: shop, hostname: web.shop.svc, vips: [/10.96.0.1], ports: {80: 8080}}
- {name: web-v1, namespace: shop, hostname: web-v1.shop.svc, vips: [/10.96.0.2], ports: {80: 8080}}
policies:
- {name: no-thief, namespace: shop, scope: Namespace, action: Deny, rules: [[[{principals: [{Exact: cluster.local/ns/shop/sa/thief}]}]]]}
- {name: strict, namespace: shop, scope: WorkloadSelector, action: Deny, rules: [[[{notPrincipals: [{Presence: }]}]]]}
`

func account(name string) spiffe.ID {
	return spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: name}
}

// incoming is a fake CONNECT.
type incoming struct {
	ctx     context.Context
	request hbone.Request
	peer    hbone.Peer
	stream  *pipeStream

	mu       sync.Mutex
	status   int
	reason   string
	header   map[string]string
	answered chan struct{}
}

func (i *incoming) Context() context.Context { return i.ctx }
func (i *incoming) Request() hbone.Request   { return i.request }
func (i *incoming) Peer() hbone.Peer         { return i.peer }
func (i *incoming) Accept(h map[string]string) (hbone.Stream, error) {
	i.status, i.header, i.reason = 200, h, h[hbone.HeaderReason]
	close(i.answered)
	return i.stream, nil
}
func (i *incoming) Reject(status int, reason string) error {
	i.status, i.reason = status, reason
	close(i.answered)
	return nil
}

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

// rig is an Inbound of the pod shop/web whose application echoes.
type rig struct {
	t      *testing.T
	in     *Inbound
	store  *view.Store
	live   connections.Set
	log    bytes.Buffer
	dialed []string // "address from source"
	fail   error
	onDial func()

	forwarded, decision string // headers of the next call
}

func model(t *testing.T, policies string) mesh.Model {
	t.Helper()
	m, err := dump.ParseLocal([]byte(strings.ReplaceAll(world, "POLICIES", policies)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newRig(t *testing.T, policies string) *rig {
	t.Helper()
	r := &rig{t: t, store: view.NewStore(), onDial: func() {}}
	r.store.Replace(model(t, policies))
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	go func() {
		for c, err := app.Accept(); err == nil; c, err = app.Accept() {
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	r.in = New(Config{
		Store: r.store, Connections: &r.live, Decisions: decision.NewRing(decision.Config{}), LocalTimeout: 50 * time.Millisecond,
		Local: func(ctx context.Context) (*mesh.Workload, error) { return r.store.Local(ctx, "shop", "web", "web") },
		Dial: func(ctx context.Context, to netip.AddrPort, source netip.Addr) (*net.TCPConn, error) {
			r.dialed = append(r.dialed, to.String()+" from "+source.String())
			r.onDial()
			if r.fail != nil {
				return nil, r.fail
			}
			return linux.DialTCP(ctx, nil, linux.AddrPort(app.Addr()), linux.DialOptions{})
		},
		Recorder: telemetry.NewRecorder(telemetry.NewTraffic(telemetry.TrafficConfig{}), slog.New(slog.NewJSONHandler(&r.log, nil))),
	})
	return r
}

// call begins a CONNECT and waits for its answer; done ends it.
func (r *rig) call(authority string, from spiffe.ID) (in *incoming, far net.Conn, done func()) {
	r.t.Helper()
	near, far := net.Pipe()
	header := map[string]string{"baggage": "k8s.namespace.name=shop,service.name=caller", "traceparent": "00-1-2-00"}
	if r.decision != "" {
		header[hbone.HeaderDecision] = r.decision
	}
	if r.forwarded != "" {
		header["forwarded"] = r.forwarded
	}
	in = &incoming{
		ctx: r.t.Context(), stream: &pipeStream{near}, answered: make(chan struct{}),
		request: hbone.Request{Authority: authority, Header: header},
		peer:    hbone.Peer{ID: from, Remote: netip.MustParseAddrPort("10.1.0.5:4000"), Local: netip.MustParseAddrPort("10.1.0.6:15008")},
	}
	handled := make(chan struct{})
	go func() { defer close(handled); r.in.Tunnel(in) }()
	<-in.answered
	return in, far, func() { far.Close(); <-handled }
}

func (r *rig) record() map[string]any {
	r.t.Helper()
	var out map[string]any
	if err := json.Unmarshal(r.log.Bytes(), &out); err != nil {
		r.t.Fatalf("want one record: %v in %s", err, r.log.String())
	}
	return out
}

func TestAnswersToConnect(t *testing.T) {
	for _, c := range []struct {
		name, authority string
		from            string
		fail            error
		status          int
		reason, policy  string
		dialed          []string
	}{
		{name: "a caller that no policy denies is let in, as itself", authority: "10.1.0.6:8080", from: "client", status: 200, reason: "no policy", dialed: []string{"10.1.0.6:8080 from 10.1.0.5"}},
		{name: "a name is resolved to the pod's own port", authority: "web.shop.svc:80", from: "client", status: 200, reason: "no policy", dialed: []string{"10.1.0.6:8080 from 10.1.0.5"}},
		{name: "a denied caller is told the policy, and the application nothing", authority: "10.1.0.6:8080", from: "thief", status: 401, reason: "shop/no-thief", policy: "shop/no-thief"},
		{name: "the address must be the pod's", authority: "10.1.0.99:8080", from: "client", status: 400, reason: "10.1.0.99"},
		{name: "nonsense is refused", authority: "nonsense", from: "client", status: 400, reason: "authority"},
		{name: "the proxy's own ports are refused", authority: "10.1.0.6:15006", from: "client", status: 503, reason: "proxy's own"},
		{name: "a name that is not known is refused", authority: "other.shop.svc:80", from: "client", status: 503, reason: "not known"},
		{name: "an application that does not accept is told", authority: "10.1.0.6:8080", from: "client", fail: errors.New("connection refused"), status: 503, reason: "connection refused", dialed: []string{"10.1.0.6:8080 from 10.1.0.5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "")
			r.fail = c.fail
			in, far, done := r.call(c.authority, account(c.from))
			if in.status != c.status || !strings.Contains(in.reason, c.reason) {
				t.Errorf("answer %d %q, want %d with %q", in.status, in.reason, c.status, c.reason)
			}
			if c.status == 200 {
				io.WriteString(far, "hello")
				b := make([]byte, 5)
				if _, err := io.ReadFull(far, b); err != nil || string(b) != "hello" {
					t.Errorf("echo %q, %v", b, err)
				}
				if !strings.Contains(in.header["baggage"], "k8s.namespace.name=shop") {
					t.Errorf("answer's baggage %q", in.header["baggage"])
				}
			}
			done()
			if len(r.dialed) != len(c.dialed) || len(c.dialed) > 0 && r.dialed[0] != c.dialed[0] {
				t.Errorf("dialled %v, want %v", r.dialed, c.dialed)
			}
			rec := r.record()
			if got, _ := rec["reason"].(string); !strings.Contains(got, c.reason) {
				t.Errorf("record has reason %q, want %q", got, c.reason)
			}
			if got, _ := rec["policy"].(string); got != c.policy {
				t.Errorf("record has policy %q, want %q", got, c.policy)
			}
			if rec["level"] == "INFO" != (c.status == 200) {
				t.Errorf("record %v", rec)
			}
			if r.live.Len() != 0 {
				t.Error("still tracked")
			}
		})
	}
}

func TestTheRecordNamesTheServiceThatWasDialled(t *testing.T) {
	for forwarded, want := range map[string]string{
		`for="10.1.0.5:4000"`:                      "web-v1.shop.svc", // the first of two with this port
		`for="10.1.0.5:4000";host=web.shop.svc`:    "web.shop.svc",
		`for="10.1.0.5:4000";host=web-v1.shop.svc`: "web-v1.shop.svc",
		`for="10.1.0.5:4000";host=bank.shop.svc`:   "web-v1.shop.svc", // not one of the pod's: the client may lie
	} {
		r := newRig(t, "")
		r.forwarded = forwarded
		_, _, done := r.call("10.1.0.6:8080", account("client"))
		done()
		if rec := r.record(); rec["dst.service"] != want || rec["trace"] != "00-1-2-00" {
			t.Errorf("%s: record of %v, want %s", forwarded, rec["dst.service"], want)
		}
	}
}

func TestAPodWhoseRecordHasNotComeAnswersNobody(t *testing.T) {
	r := newRig(t, "")
	r.store.Replace(mesh.Model{})
	in, _, done := r.call("10.1.0.6:8080", account("client"))
	defer done()
	if in.status != 503 || len(r.dialed) > 0 {
		t.Errorf("answer %d, dialled %v", in.status, r.dialed)
	}
	if _, err := r.in.Self(t.Context()); err == nil {
		t.Error("a handshake was begun without an identity")
	}
}

// follow is what ztunnel's root does with each new view.
func (r *rig) follow() int {
	v := r.store.View()
	local := v.WorkloadByAccount("shop", "web", "web")
	return r.live.Rejudge(func(c policy.Connection) policy.Verdict { return route.Judge(v, local, c) })
}

func TestAnOpenConnectionIsCutWhenAPolicyDeniesIt(t *testing.T) {
	r := newRig(t, "")
	m := model(t, "")
	open := mesh.PolicyKey{Namespace: "shop", Name: "no-thief"}
	delete(m.Policies, open)
	r.store.Replace(m)
	in, far, done := r.call("10.1.0.6:8080", account("thief"))
	if in.status != 200 {
		t.Fatalf("answer %d %s", in.status, in.reason)
	}
	r.store.Replace(model(t, ""))
	r.follow()
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Error("the connection lives on")
	}
	done()
	rec := r.record()
	if rec["policy"] != "shop/no-thief" || rec["cut"] != "policy" || !strings.Contains(rec["error"].(string), "policy change") || rec["level"] != "ERROR" {
		t.Errorf("record %v", rec)
	}
}

func TestAnOpenConnectionIsCutWhenAPolicyIsAttached(t *testing.T) {
	r := newRig(t, "")
	_, far, done := r.call("10.1.0.6:8080", account("client"))
	r.store.Replace(model(t, "shop/not-sent-yet"))
	r.follow()
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Error("the connection lives on, though its workload names a policy that nobody knows")
	}
	done()
	if rec := r.record(); rec["policy"] != "shop/not-sent-yet" {
		t.Errorf("record %v", rec)
	}
}

func TestAPolicyThatComesWhileTheApplicationIsDialledIsNotMissed(t *testing.T) {
	r := newRig(t, "")
	m := model(t, "")
	delete(m.Policies, mesh.PolicyKey{Namespace: "shop", Name: "no-thief"})
	r.store.Replace(m)
	r.fail = errors.New("context canceled")
	r.onDial = func() { r.store.Replace(model(t, "")); r.follow() }
	in, _, done := r.call("10.1.0.6:8080", account("thief"))
	done()
	if in.status != 401 || !strings.Contains(in.reason, "shop/no-thief") {
		t.Errorf("answer %d %q, want the policy's", in.status, in.reason)
	}
}

func TestPlaintext(t *testing.T) {
	for _, c := range []struct {
		name, policies string
		port           uint16
		carried        bool
		log            string
	}{
		{name: "is let in where no policy demands an identity", port: 8080, carried: true, log: "no policy"},
		{name: "is refused under STRICT, with the policy named", policies: "shop/strict", port: 8080, log: `"policy":"shop/strict"`},
		{name: "to the proxy's own port is refused", port: 15001, log: "proxy's own"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.policies)
			r.in.OriginalDst = func(*net.TCPConn) (netip.AddrPort, error) {
				return netip.AddrPortFrom(netip.MustParseAddr("10.1.0.6"), c.port), nil
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			captured, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			handled := make(chan struct{})
			go func() { defer close(handled); r.in.Plain(t.Context(), captured.(*net.TCPConn)) }()
			io.WriteString(client, "hello")
			b := make([]byte, 5)
			_, err = io.ReadFull(client, b)
			if carried := err == nil; carried != c.carried {
				t.Errorf("got %q, %v", b, err)
			}
			client.Close()
			<-handled
			if !strings.Contains(r.log.String(), c.log) {
				t.Errorf("log %s, want %s", r.log.String(), c.log)
			}
		})
	}
}

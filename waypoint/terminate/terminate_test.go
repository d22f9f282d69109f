package terminate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"

	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

func TestOnlyWhatUsesThisWaypointIsReached(t *testing.T) {
	r := newRig(t)
	web := r.pod("web", backendtest.Named("web"))
	r.service("web", 1, mesh.AppHTTP11, web)
	r.service("headless", 9, mesh.AppHTTP11, web).Addresses = nil
	r.service("other", 2, mesh.AppHTTP11).Waypoint.Service = key("other-wp")
	r.service("none", 3, mesh.AppHTTP11).Waypoint = mesh.GatewayAddress{}
	r.service("wp", 4, mesh.AppHTTP11).Waypoint = mesh.GatewayAddress{}
	byAddress := r.service("by-address", 5, mesh.AppHTTP11, web)
	byAddress.Waypoint = mesh.GatewayAddress{Address: netip.MustParseAddr("10.96.0.4"), Port: 15008}
	weighted := r.service("weighted", 6, mesh.AppHTTP11, web)
	weighted.Waypoint, weighted.WeightedWaypoints = mesh.GatewayAddress{}, []mesh.WeightedWaypoint{{Destination: mesh.GatewayAddress{Service: key("wp")}, Weight: 1}}
	attached, detached := r.pod("attached", backendtest.Named("attached")), r.pod("detached", backendtest.Named("detached"))
	attached.Waypoint = mesh.GatewayAddress{Service: key("wp")}
	r.model.Workloads[attached.UID], r.model.Workloads[detached.UID] = attached.Workload, detached.Workload
	r.self.Waypoint = mesh.GatewayAddress{Service: key("wp")}
	r.store.Replace(r.model)
	for _, c := range []struct {
		what, authority string
		status          int
		reason          string
	}{
		{"a service by its address", "10.96.0.1:80", 200, ""},
		{"a service by its name", "web.shop.svc.cluster.local:80", 200, ""},
		{"a service without an address by its name", "headless.shop.svc.cluster.local:80", 200, ""},
		{"a service that names the waypoint by address", "10.96.0.5:80", 200, ""},
		{"a service with several waypoints", "10.96.0.6:80", 200, ""},
		{"a workload by its address", attached.Address.String(), 200, ""},
		{"a port that the service does not declare", "10.96.0.1:81", 503, "no port 81"},
		{"the waypoint's own port of HBONE at a service", "10.96.0.1:15008", 503, "no port 15008"},
		{"a service with another waypoint", "10.96.0.2:80", 503, "does not use this waypoint"},
		{"a service without a waypoint", "10.96.0.3:80", 503, "does not use this waypoint"},
		{"the waypoint's own service", "10.96.0.4:80", 503, "does not use this waypoint"},
		{"a workload without a waypoint", detached.Address.String(), 503, "does not use this waypoint"},
		{"the waypoint itself", netip.AddrPortFrom(r.self.Addresses[0], 15000).String(), 503, "is the waypoint itself"},
		{"the loopback interface", "127.0.0.1:15000", 503, "not known here"},
		{"the world", "93.184.216.34:443", 503, "not known here"},
		{"a name of the world", "example.com:443", 503, "not known here"},
		{"no port", "10.96.0.1", 400, "authority"},
		{"port 0", "10.96.0.1:0", 400, "authority"},
		{"a port that is none", "10.96.0.1:http", 400, "authority"},
		{"no host", ":80", 400, "authority"},
	} {
		s, err := r.open(c.authority)
		if c.status == 200 {
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
			} else if got := r.get(s, "/"); !strings.Contains(got, "200 OK") {
				t.Errorf("%s: answered %q", c.what, got)
			}
			continue
		}
		no, _ := errors.AsType[*hbone.StatusError](err)
		if no == nil || no.Response.Status != c.status || !strings.Contains(no.Response.Header[hbone.HeaderReason], c.reason) {
			t.Errorf("%s: %v, want %d with %q", c.what, err, c.status, c.reason)
		}
	}
}

func TestAConnectionWaitsForTheConfigurationThatServesIt(t *testing.T) {
	r := newRig(t)
	r.term.Patience = 20 * time.Second
	opened := make(chan error, 1)
	go func() { _, err := r.open("10.96.0.1:80"); opened <- err }()
	select {
	case err := <-opened:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	r.service("web", 1, mesh.AppHTTP11)
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestDeclarationsComeBeforeRoutes(t *testing.T) {
	for _, c := range []struct {
		app    mesh.AppProtocol
		routes match.Protocol
		want   speech
	}{
		{mesh.AppHTTP11, match.ProtocolUnknown, speechHTTP},
		{mesh.AppHTTP2, match.ProtocolTCP, speechHTTP},
		{mesh.AppGRPC, match.ProtocolTLS, speechHTTP},
		{mesh.AppTCP, match.ProtocolHTTP, speechTCP},
		{mesh.AppTCP, match.ProtocolUnknown, speechTCP},
		{mesh.AppTCP, match.ProtocolTLS, speechTLS},
		{mesh.AppTLS, match.ProtocolHTTP, speechTCP},
		{mesh.AppTLS, match.ProtocolTLS, speechTLS},
		{mesh.AppTLS, match.ProtocolTCP, speechTCP},
		{mesh.AppUnknown, match.ProtocolHTTP, speechHTTP},
		{mesh.AppUnknown, match.ProtocolGRPC, speechHTTP},
		{mesh.AppUnknown, match.ProtocolTLS, speechTLS},
		{mesh.AppUnknown, match.ProtocolTCP, speechTCP},
		{mesh.AppUnknown, match.ProtocolUnknown, speechUnknown},
	} {
		if got := speechOf(c.app, c.routes); got != c.want {
			t.Errorf("port %d with routes %d: %d, want %d", c.app, c.routes, got, c.want)
		}
	}
}

func TestLooks(t *testing.T) {
	for text, want := range map[string]looks{
		"":                                     looksUnfinished,
		"P":                                    looksUnfinished,
		"PRI * HTTP/2.0\r\n":                   looksUnfinished,
		preface:                                looksHTTP,
		preface + "\x00\x00":                   looksHTTP,
		"PRI * HTTP/2.0\r\n\r\nXX":             looksOther,
		"GET / HTTP/1.1\r\n":                   looksHTTP,
		"GET / HTTP/1.0\n":                     looksHTTP,
		"GET /":                                looksUnfinished,
		"OPTIONS * HTTP/1.1\r\n":               looksHTTP,
		"M-SEARCH * HTTP/1.1\r\n":              looksHTTP,
		"CONNECT a:1 HTTP/1.1\r\n":             looksHTTP,
		"GET key\r\n":                          looksOther, // redis, inline
		"PING\r\n":                             looksOther,
		"EHLO example\r\n":                     looksOther,
		"get a\r\n":                            looksOther, // memcached
		"*1\r\n$4\r\nPING\r\n":                 looksOther,
		"\x16\x03\x01":                         looksOther,
		"SSH-2.0-OpenSSH\r\n":                  looksOther,
		"\x00\x00\x00\x08\x04\xd2":             looksOther, // postgres
		"GET / HTTP/1.1 x\r\n":                 looksOther,
		" / HTTP/1.1\r\n":                      looksOther,
		strings.Repeat("A", 33):                looksOther,
		"GET /" + strings.Repeat("a", maxLine): looksOther,
	} {
		if got := look([]byte(text)); got != want {
			t.Errorf("%.40q looks like %d, want %d", text, got, want)
		}
		// It never changes its mind while bytes arrive.
		for i := range min(len(text), 100) {
			if got := look([]byte(text[:i])); got != looksUnfinished && got != want {
				t.Errorf("%.40q looks like %d at %d, and like %d in the end", text, got, i, want)
			}
		}
	}
}

func TestAPortWithoutAProtocolSpeaksWhatItSpeaks(t *testing.T) {
	for _, c := range []struct {
		name   string
		serve  func(net.Listener)
		client func(t *testing.T, r *rig, s hbone.Stream)
		http   bool
	}{
		{"HTTP/1.1 at once", backendtest.Named("web"), func(t *testing.T, r *rig, s hbone.Stream) {
			if got := r.get(s, "/a//b"); !strings.Contains(got, "X-Asked: GET web/a/b") {
				t.Errorf("%q", got)
			}
		}, true},
		{"HTTP/1.1 after a silence", backendtest.Named("web"), func(t *testing.T, r *rig, s hbone.Stream) {
			r.logs("") // nothing yet
			time.Sleep(50 * time.Millisecond)
			if got := r.get(s, "/a//b"); !strings.Contains(got, "X-Asked: GET web/a/b") {
				t.Errorf("%q", got)
			}
		}, true},
		{"HTTP/1.1 letter by letter", backendtest.Named("web"), func(t *testing.T, r *rig, s hbone.Stream) {
			for _, c := range "GET /x HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n" {
				io.WriteString(s, string(c))
			}
			if b, err := io.ReadAll(s); err != nil || !strings.Contains(string(b), "X-Asked: GET web/x") {
				t.Errorf("%q, %v", b, err)
			}
		}, true},
		{"a server that speaks first", backendtest.TCP(greeter), func(t *testing.T, r *rig, s hbone.Stream) {
			b := make([]byte, 11)
			if _, err := io.ReadFull(s, b); err != nil || string(b) != "220 ready\r\n" {
				t.Errorf("greeting %q, %v", b, err)
			}
			io.WriteString(s, "ehlo GET / HTTP/1.1\r\n")
			s.CloseWrite()
			if b, err := io.ReadAll(s); err != nil || string(b) != "EHLO GET / HTTP/1.1\r\n" {
				t.Errorf("%q, %v", b, err)
			}
		}, false},
		{"bytes at once", backendtest.TCP(echo), func(t *testing.T, r *rig, s hbone.Stream) {
			io.WriteString(s, "get key\r\n")
			s.CloseWrite()
			if b, err := io.ReadAll(s); err != nil || string(b) != "GET KEY\r\n" {
				t.Errorf("%q, %v", b, err)
			}
		}, false},
		{"bytes after a silence", backendtest.TCP(echo), func(t *testing.T, r *rig, s hbone.Stream) {
			time.Sleep(50 * time.Millisecond)
			io.WriteString(s, "\x00\x01")
			b := make([]byte, 2)
			if _, err := io.ReadFull(s, b); err != nil || string(b) != "\x00\x01" {
				t.Errorf("%q, %v", b, err)
			}
			s.CloseWrite()
			if b, err := io.ReadAll(s); err != nil || len(b) > 0 {
				t.Errorf("%q, %v", b, err)
			}
		}, false},
		{"what only begins like a request", backendtest.TCP(echo), func(t *testing.T, r *rig, s hbone.Stream) {
			io.WriteString(s, "PING")
			b := make([]byte, 4)
			if _, err := io.ReadFull(s, b); err != nil || string(b) != "PING" {
				t.Errorf("%q, %v", b, err)
			}
			s.CloseWrite()
			io.ReadAll(s)
		}, false},
		{"a client that says nothing and goes", backendtest.TCP(echo), func(t *testing.T, r *rig, s hbone.Stream) {
			s.CloseWrite()
			if b, err := io.ReadAll(s); err != nil || len(b) > 0 {
				t.Errorf("%q, %v", b, err)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.term.Unfinished = 50 * time.Millisecond
			r.service("web", 1, mesh.AppUnknown, r.pod("web", c.serve))
			c.client(t, r, r.mustOpen("10.96.0.1:80"))
			if c.http {
				if n := len(r.requests); n != 1 {
					t.Errorf("%d requests were seen, want 1", n)
				}
			} else {
				r.logs("connection complete")
			}
		})
	}
}

func TestHalfClosesAndResetsPass(t *testing.T) {
	r := newRig(t)
	reset := make(chan error, 1)
	r.service("db", 1, mesh.AppTCP, r.pod("db", backendtest.TCP(func(c *net.TCPConn) {
		defer c.Close()
		b, err := io.ReadAll(c)
		if err != nil {
			reset <- err
			return
		}
		io.WriteString(c, strings.ToUpper(string(b))+" after the end")
	})))
	s := r.mustOpen("10.96.0.1:80")
	io.WriteString(s, "question")
	s.CloseWrite()
	if b, err := io.ReadAll(s); err != nil || string(b) != "QUESTION after the end" {
		t.Errorf("%q, %v", b, err)
	}
	r.logs("dst.workload=db")
	s = r.mustOpen("10.96.0.1:80")
	io.WriteString(s, "question")
	s.Reset()
	select {
	case <-reset:
	case <-time.After(20 * time.Second):
		t.Error("the backend did not hear of the reset")
	}
}

func TestABackendThatDoesNotAcceptIsToldBeforeTheAnswer(t *testing.T) {
	r := newRig(t)
	w := r.mesh.Workload("gone")
	w.Tunnel = mesh.TunnelNone
	w.Services = map[mesh.ServiceKey][]mesh.Port{key("db"): {{Service: 80, Target: backendtest.AppPort}}}
	r.model.Workloads[w.UID] = w
	r.service("db", 1, mesh.AppTCP)
	_, err := r.open("10.96.0.1:80")
	if no, _ := errors.AsType[*hbone.StatusError](err); no == nil || no.Response.Status != 503 || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v, want 503 with the reason", err)
	}
	r.logs("connection refused")
}

func TestAnotherEndpointIsTriedForAConnection(t *testing.T) {
	r := newRig(t)
	thief := r.mesh.Pod("thief", certstest.ID("shop", "other"), backendtest.TCP(greeter))
	r.service("db", 1, mesh.AppTCP, r.pod("db", backendtest.TCP(greeter)), thief)
	for range 10 {
		s := r.mustOpen("10.96.0.1:80")
		if _, err := io.ReadFull(s, make([]byte, 11)); err != nil {
			t.Error(err)
		}
		s.Close()
	}
	if thief.Tunnelled.Load() != 0 {
		t.Error("a backend of another identity got connections")
	}
}

func TestTCPRoutesShareConnections(t *testing.T) {
	r := newRig(t)
	named := func(name string) func(net.Listener) {
		return backendtest.TCP(func(c *net.TCPConn) { io.WriteString(c, name); c.CloseWrite(); io.Copy(io.Discard, c); c.Close() })
	}
	r.service("db", 1, mesh.AppTCP, r.pod("db", named("db")))
	r.service("v1", 2, mesh.AppTCP, r.pod("v1", named("v1")))
	r.service("v2", 3, mesh.AppTCP, r.pod("v2", named("v2")))
	k := mesh.RouteKey{Kind: mesh.RouteTCP, Namespace: "shop", Name: "r"}
	r.model.Routes[k] = &mesh.Route{Key: k, Parents: []mesh.RouteParent{{Service: key("db")}}, Rules: []mesh.RouteRule{{
		Backends: []mesh.Backend{{Service: key("v1"), Port: 80, Weight: 3}, {Service: key("v2"), Port: 80, Weight: 1}},
	}}}
	r.store.Replace(r.model)
	count := map[string]int{}
	for range 80 {
		s := r.mustOpen("10.96.0.1:80")
		b, _ := io.ReadAll(s)
		s.CloseWrite()
		count[string(b)]++
	}
	if count["v1"]+count["v2"] != 80 || count["v2"] < 5 || count["v2"] > 40 {
		t.Errorf("shares %v, want about 60 to 20", count)
	}
	r.model.Routes[k].Rules[0].Backends = []mesh.Backend{{Service: key("gone"), Weight: 1, Invalid: "no such service"}}
	r.store.Replace(r.model)
	if _, err := r.open("10.96.0.1:80"); err == nil || !strings.Contains(err.Error(), "no such service") {
		t.Errorf("a share that leads nowhere: %v", err)
	}
}

func TestTLSRoutesGoByName(t *testing.T) {
	r := newRig(t)
	r.service("tls", 1, mesh.AppTLS)
	for i, name := range []string{"a", "b"} {
		r.service(name, byte(2+i), mesh.AppTLS, r.pod(name, backendtest.TCP(func(c *net.TCPConn) {
			defer c.Close()
			s := tls.Server(c, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
				return nil, fmt.Errorf("%s was asked for %s", name, h.ServerName)
			}})
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(c, name+":")
			s.Handshake()
		})))
	}
	k := mesh.RouteKey{Kind: mesh.RouteTLS, Namespace: "shop", Name: "r"}
	r.model.Routes[k] = &mesh.Route{Key: k, Parents: []mesh.RouteParent{{Service: key("tls")}}, Rules: []mesh.RouteRule{
		{SNI: []string{"a.example"}, Backends: []mesh.Backend{{Service: key("a"), Port: 80, Weight: 1}}},
		{SNI: []string{"*.b.example"}, Backends: []mesh.Backend{{Service: key("b"), Port: 80, Weight: 1}}},
	}}
	r.store.Replace(r.model)
	for name, want := range map[string]string{"a.example": "a:", "x.b.example": "b:", "c.example": ""} {
		s := r.mustOpen("10.96.0.1:80")
		go tls.Client(helloOnly{s}, &tls.Config{ServerName: name}).Handshake()
		b := make([]byte, 2)
		_, err := io.ReadFull(s, b)
		if got := strings.TrimRight(string(b), "\x00"); got != want {
			t.Errorf("%s leads to %q, %v; want %q", name, got, err, want)
		}
		s.Close()
	}
	s := r.mustOpen("10.96.0.1:80")
	io.WriteString(s, "GET / HTTP/1.1\r\n\r\n")
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, hbone.ErrReset) {
		t.Errorf("what is no TLS: %v, want a reset", err)
	}
}

// helloOnly lets a TLS client write its hello, and read nothing.
type helloOnly struct{ hbone.Stream }

func (helloOnly) Read([]byte) (int, error)    { return 0, io.EOF }
func (helloOnly) Close() error                { return nil }
func (helloOnly) LocalAddr() net.Addr         { return nil }
func (helloOnly) RemoteAddr() net.Addr        { return nil }
func (helloOnly) SetDeadline(time.Time) error { return nil }

func TestPoliciesGuardConnections(t *testing.T) {
	deny := &mesh.Policy{
		Key: mesh.PolicyKey{Namespace: "shop", Name: "no-client"}, Scope: mesh.ScopeTargets, Action: mesh.ActionDeny, Targets: []mesh.Target{{Service: key("db")}},
		Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{Principals: []mesh.StringMatch{{Value: client.Principal()}}}}}}}},
	}
	onlyGET := &mesh.Policy{
		Key: mesh.PolicyKey{Namespace: "shop", Name: "only-get"}, Scope: mesh.ScopeTargets, Action: mesh.ActionAllow, Targets: []mesh.Target{{Service: key("db")}},
		Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{HTTP: &mesh.HTTPMatch{Methods: []mesh.StringMatch{{Value: "GET"}}}}}}}}},
	}
	for _, p := range []*mesh.Policy{deny, onlyGET} {
		for _, app := range []mesh.AppProtocol{mesh.AppTCP, mesh.AppUnknown} {
			r := newRig(t)
			pod := r.pod("db", backendtest.TCP(greeter))
			r.service("db", 1, app, pod)
			live := r.mustOpen("10.96.0.1:80")
			if _, err := io.ReadFull(live, make([]byte, 11)); err != nil {
				t.Fatal(err)
			}
			before := pod.Tunnelled.Load()
			r.model.Policies[p.Key] = p
			r.store.Replace(r.model)
			if n := r.term.Follow(r.store.Table()); n != 1 {
				t.Errorf("%s: %d connections were cut, want 1", p.Key, n)
			}
			if _, err := live.Read(make([]byte, 1)); !errors.Is(err, hbone.ErrReset) {
				t.Errorf("%s: a live connection: %v, want a reset", p.Key, err)
			}
			s, err := r.open("10.96.0.1:80")
			if app == mesh.AppTCP {
				if no, _ := errors.AsType[*hbone.StatusError](err); no == nil || no.Response.Status != 401 || !strings.Contains(err.Error(), p.Key.String()) {
					t.Errorf("%s: %v, want 401 with the policy", p.Key, err)
				}
			} else {
				io.WriteString(s, "bytes\n")
				if _, err := s.Read(make([]byte, 1)); !errors.Is(err, hbone.ErrReset) {
					t.Errorf("%s: %v, want a reset", p.Key, err)
				}
			}
			if n := pod.Tunnelled.Load(); n != before {
				t.Errorf("%s: the backend was connected to", p.Key)
			}
			r.logs("policy=" + p.Key.String())
		}
	}
}

func TestAPeerWithoutACertificateIsRecorded(t *testing.T) {
	r := newRig(t)
	r.term.Refused(netip.MustParseAddrPort("10.1.0.9:1"), &hbone.PeerError{Got: spiffe.ID{}, Err: errors.New("who is it")})
	r.logs("who is it")
}

func TestAnUpgradeEndsAsItsEndsDo(t *testing.T) {
	r := newRig(t)
	r.service("web", 1, mesh.AppHTTP11, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		c, b, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
		all, _ := io.ReadAll(b)
		io.WriteString(c, strings.ToUpper(string(all)))
	})))
	s := r.mustOpen("10.96.0.1:80")
	io.WriteString(s, "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nearly ")
	head := make([]byte, len("HTTP/1.1 101"))
	if _, err := io.ReadFull(s, head); err != nil || string(head) != "HTTP/1.1 101" {
		t.Errorf("%q, %v", head, err)
	}
	io.WriteString(s, "and late")
	s.CloseWrite()
	b, err := io.ReadAll(s)
	if err != nil || !strings.HasSuffix(string(b), "\r\n\r\nEARLY AND LATE") {
		t.Errorf("%q, %v", b, err)
	}
}

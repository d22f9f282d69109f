package xds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
)

// kept is a Receiver that keeps bodies and rejects those that start with "bad".
type kept struct {
	mu  sync.Mutex
	has map[string]string
	log []string
}

func (k *kept) Receive(_ context.Context, u Update) []Rejection {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.has == nil {
		k.has = map[string]string{}
	}
	var bad []Rejection
	r := response{typ: u.Type, removed: u.Removed}
	for _, n := range u.Removed {
		delete(k.has, n)
	}
	for _, x := range u.Upserts {
		r.upserts = append(r.upserts, &x)
		if strings.HasPrefix(string(x.Body), "bad") {
			bad = append(bad, Rejection{x.Name, errors.New("no good")})
			continue
		}
		k.has[x.Name] = string(x.Body)
	}
	k.log = append(k.log, say([]response{r})...)
	return bad
}

func (k *kept) holds(want map[string]string) func() bool {
	return func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return cmp.Equal(k.has, want)
	}
}

func (k *kept) heard() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.log)
}

// authority issues server certificates for tests.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, cert}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *authority) server(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serve runs register's service with TLS at addr ("" any) until stop.
func serve(t *testing.T, cert tls.Certificate, addr string, register func(*grpc.Server)) (at string, stop func()) {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})))
	register(g)
	done := make(chan struct{})
	go func() { defer close(done); g.Serve(l) }()
	stop = sync.OnceFunc(func() { g.Stop(); <-done })
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs a client until the test ends.
func start(t *testing.T, cfg Config) *Client {
	t.Helper()
	cfg.Logger, cfg.ServerName, cfg.Node = quiet, "istiod.test", Node{ID: "ztunnel~1", Metadata: map[string]any{"NODE_NAME": "n1"}}
	c := NewClient(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

func synced(t *testing.T, c *Client) {
	t.Helper()
	select {
	case <-c.Synced():
	case <-time.After(patience):
		t.Fatalf("not synced: %+v", c.Status())
	}
}

func TestClientFollowsOurServerAcrossRestarts(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	root, token := filepath.Join(dir, "root.pem"), filepath.Join(dir, "token")
	write(t, root, ca.pem())
	write(t, token, []byte("first\n"))
	var mu sync.Mutex
	var tokens, clusters []string
	auth := func(ctx context.Context) (string, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		mu.Lock()
		defer mu.Unlock()
		tokens = append(tokens, md.Get("authorization")...)
		clusters = append(clusters, md.Get("clusterid")...)
		return "ztunnel", nil
	}
	src := &fixed{}
	s := NewServer(ServerConfig{Logger: quiet, Source: src, Authenticate: auth})
	src.set(s, set(res("p", "1")), set(res("v", "1"), res("w", "1")))
	addr, stop := serve(t, ca.server(t, "istiod.test"), "", func(g *grpc.Server) { s.Register(g) })

	got := &kept{}
	c := start(t, Config{Address: addr, RootFile: root, TokenFile: token, ClusterID: "c1", Receiver: got})
	synced(t, c)
	eventually(t, "all is held", got.holds(map[string]string{"p": "1", "v": "1", "w": "1"}))
	eventually(t, "all is accepted", func() bool {
		st := s.Status()
		return len(st) == 1 && st[0].Node == "n1" && st[0].Types[0].Acked == 1 && st[0].Types[1].Acked == 1
	})
	if st := c.Status(); !st.Connected || st.LastContact.IsZero() {
		t.Errorf("connected, yet the status says %+v", st)
	}

	// A new control plane with a new root: only the difference comes.
	stop()
	ca = newAuthority(t)
	write(t, root, ca.pem())
	write(t, token, []byte("second"))
	s = NewServer(ServerConfig{Logger: quiet, Source: src, Authenticate: auth})
	src.set(s, set(res("p", "1")), set(res("w", "2")))
	serve(t, ca.server(t, "istiod.test"), addr, func(g *grpc.Server) { s.Register(g) })
	eventually(t, "the new state is held", got.holds(map[string]string{"p": "1", "w": "2"}))
	if d := cmp.Diff([]string{"policies +p", "workloads +v +w", "workloads +w -v"}, got.heard()[:3]); d != "" {
		t.Error(d)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Contains(tokens, "Bearer first") || !slices.Contains(tokens, "Bearer second") {
		t.Errorf("tokens presented: %q, want the file's newest each time", tokens)
	}
	if clusters[0] != "c1" {
		t.Errorf("clusterid %q, want c1", clusters)
	}
}

func TestClientKeepsItsStateWhileTheControlPlaneIsAwayOrWrong(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	root := filepath.Join(dir, "root.pem")
	write(t, root, ca.pem())
	src := &fixed{}
	s := NewServer(ServerConfig{Logger: quiet, Source: src})
	src.set(s, nil, set(res("w", "1")))
	addr, stop := serve(t, ca.server(t, "istiod.test"), "", func(g *grpc.Server) { s.Register(g) })
	got := &kept{}
	c := start(t, Config{Address: addr, RootFile: root, Receiver: got})
	synced(t, c)
	stop()
	imposter := NewServer(ServerConfig{Logger: quiet, Source: &fixed{snap: &Snapshot{Generation: 1}}})
	serve(t, newAuthority(t).server(t, "istiod.test"), addr, func(g *grpc.Server) { imposter.Register(g) })
	eventually(t, "the imposter's certificate is refused", func() bool {
		st := c.Status()
		return !st.Connected && strings.Contains(st.LastError, "certificate")
	})
	if !got.holds(map[string]string{"w": "1"})() {
		t.Error("what was known is gone")
	}
}

// scripted is a control plane that sends what it is told.
type scripted struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	send []*discovery.DeltaDiscoveryResponse
	// streams gets every request of each stream.
	requests chan *discovery.DeltaDiscoveryRequest
	hangUp   chan struct{}
}

func (s *scripted) DeltaAggregatedResources(stream deltaStream) error {
	for range 2 {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		s.requests <- r
	}
	for _, r := range s.send {
		if err := stream.Send(r); err != nil {
			return err
		}
		got, err := stream.Recv()
		if err != nil {
			return err
		}
		s.requests <- got
	}
	select {
	case <-s.hangUp:
	case <-stream.Context().Done():
	}
	return nil
}

func message(typ, nonce string, rs ...*Resource) *discovery.DeltaDiscoveryResponse {
	m := &discovery.DeltaDiscoveryResponse{TypeUrl: typ, Nonce: nonce}
	for _, r := range rs {
		m.Resources = append(m.Resources, &discovery.Resource{Name: r.Name, Version: r.Version, Resource: &anypb.Any{TypeUrl: typ, Value: r.Body}})
	}
	return m
}

func TestClientAnswersEachResponse(t *testing.T) {
	ca := newAuthority(t)
	root := filepath.Join(t.TempDir(), "root.pem")
	write(t, root, ca.pem())
	mistyped := message(TypeAddress, "3", res("v", "1"))
	mistyped.Resources[0].Resource.TypeUrl = TypeAuthorization
	srv := &scripted{requests: make(chan *discovery.DeltaDiscoveryRequest, 100), hangUp: make(chan struct{}), send: []*discovery.DeltaDiscoveryResponse{
		message(TypeAuthorization, "1", res("good", "1"), res("b1", "bad"), res("b2", "bad")),
		message("type.example/Unknown", "2", res("x", "1")),
		mistyped,
		message(TypeAddress, "4", res("w", "1")),
	}}
	addr, _ := serve(t, ca.server(t, "istiod.test"), "", func(g *grpc.Server) {
		discovery.RegisterAggregatedDiscoveryServiceServer(g, srv)
	})
	got := &kept{}
	c := start(t, Config{Address: addr, RootFile: root, Receiver: got})
	next := func() *discovery.DeltaDiscoveryRequest {
		t.Helper()
		select {
		case r := <-srv.requests:
			return r
		case <-time.After(patience):
			t.Fatal("no request")
			return nil
		}
	}
	for _, typ := range []string{TypeAuthorization, TypeAddress} {
		if r := next(); r.TypeUrl != typ || r.Node.GetId() == "" || len(r.ResourceNamesSubscribe)+len(r.ResourceNamesUnsubscribe) > 0 {
			t.Errorf("first request for %s: %v", typ, r)
		}
	}
	for _, want := range []struct{ nonce, reason string }{
		{"1", "b1: no good; b2: no good"}, // the good one was applied all the same
		{"2", ""},                         // unknown types are accepted and ignored
		{"3", `v: is a "` + TypeAuthorization + `"`},
		{"4", ""},
	} {
		if r := next(); r.ResponseNonce != want.nonce || r.ErrorDetail.GetMessage() != want.reason {
			t.Errorf("answer %q with reason %q, want %+v", r.ResponseNonce, r.ErrorDetail.GetMessage(), want)
		}
	}
	synced(t, c) // although the first policies were partly rejected
	if !got.holds(map[string]string{"good": "1", "w": "1"})() {
		t.Errorf("heard %q", got.heard())
	}
	// On the next stream what was rejected is reported without a version.
	close(srv.hangUp)
	if d := cmp.Diff(map[string]string{"good": "1", "b1": "", "b2": ""}, next().InitialResourceVersions); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]string{"w": "1", "v": ""}, next().InitialResourceVersions); d != "" {
		t.Error(d)
	}
	if st := c.Status(); st.Rejected < 2 {
		t.Errorf("%d rejected responses, want at least 2", st.Rejected)
	}
}

func TestClientRefusesAConfigurationThatCannotWork(t *testing.T) {
	ok := Config{Address: "istiod:15012", RootFile: "r", Node: Node{ID: "n"}, Receiver: &kept{}}
	for name, spoil := range map[string]func(*Config){
		"no address":    func(c *Config) { c.Address = "" },
		"no port":       func(c *Config) { c.Address = "istiod" },
		"no node":       func(c *Config) { c.Node.ID = "" },
		"no roots":      func(c *Config) { c.RootFile = "" },
		"no receiver":   func(c *Config) { c.Receiver = nil },
		"an empty type": func(c *Config) { c.Types = []string{""} },
	} {
		cfg := ok
		spoil(&cfg)
		if err := NewClient(cfg).Run(t.Context()); err == nil {
			t.Errorf("%s: Run accepts it", name)
		}
	}
}

// TestAClientThatHoldsThingsAlreadyIsSentTheDifference, as one that was
// restarted.
func TestAClientThatHoldsThingsAlreadyIsSentTheDifference(t *testing.T) {
	ca := newAuthority(t)
	root := filepath.Join(t.TempDir(), "root.pem")
	write(t, root, ca.pem())
	src := &fixed{}
	s := NewServer(ServerConfig{Logger: quiet, Source: src})
	src.set(s, set(res("p", "1")), set(res("v", "1"), res("w", "2")))
	addr, _ := serve(t, ca.server(t, "istiod.test"), "", func(g *grpc.Server) { s.Register(g) })
	got := &kept{}
	c := start(t, Config{Address: addr, RootFile: root, Receiver: got, Held: map[string]map[string]string{
		TypeAuthorization: {"p": "1"}, TypeAddress: {"v": "1", "w": "1", "gone": "1"},
	}})
	synced(t, c) // though nothing is new of one type
	if d := cmp.Diff([]string{"workloads +w -gone"}, got.heard()); d != "" {
		t.Error(d)
	}
}

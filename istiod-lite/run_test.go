package istiodlite

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
)

const patience = 20 * time.Second

// proxy is a Receiver that keeps what a ztunnel would, and the order it came in.
type proxy struct {
	mu        sync.Mutex
	workloads map[string]*mesh.Workload
	policies  map[string]*mesh.Policy
	open      []string // workloads that named a policy not yet there
}

func (p *proxy) Receive(_ context.Context, u xds.Update) (bad []xds.Rejection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range u.Upserts {
		if u.Type == xds.TypeAuthorization {
			policy, err := wire.UnmarshalPolicy(r.Name, r.Body)
			if err != nil {
				bad = append(bad, xds.Rejection{Name: r.Name, Reason: err})
				continue
			}
			p.policies[r.Name] = policy
			continue
		}
		w, _, err := wire.UnmarshalAddress(r.Body)
		if err != nil {
			bad = append(bad, xds.Rejection{Name: r.Name, Reason: err})
		} else if w != nil {
			p.workloads[r.Name] = w
			p.check(w)
		}
	}
	for _, name := range u.Removed {
		delete(p.workloads, name)
		delete(p.policies, name)
	}
	for _, w := range p.workloads {
		p.check(w)
	}
	return bad
}

func (p *proxy) check(w *mesh.Workload) {
	for _, k := range w.Policies {
		if p.policies[k.String()] == nil {
			p.open = append(p.open, w.UID+" before "+k.String())
		}
	}
}

func (p *proxy) see(t *testing.T, what string, ok func(*proxy) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		p.mu.Lock()
		yes := ok(p)
		p.mu.Unlock()
		if yes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("did not come true: %s; workloads %v, policies %v", what, p.workloads, p.policies)
		}
	}
}

const podsYAML = `
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-1, namespace: istio-system, uid: z-uid}
spec: {nodeName: n1, serviceAccountName: ztunnel}
status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: front, namespace: shop, labels: {app: front}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, serviceAccountName: front}
status: {phase: Running, podIP: 10.0.0.5, podIPs: [{ip: 10.0.0.5}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n2, serviceAccountName: db}
status: {phase: Running, podIP: 10.0.1.5, podIPs: [{ip: 10.0.1.5}], conditions: [{type: Ready, status: "True"}]}
`

const policyYAML = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-front, namespace: shop}
spec: {selector: {matchLabels: {app: db}}, rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/front"]}}]}]}
`

// house is a control plane over a directory, and what a proxy of it needs.
type house struct {
	dir, root, token  string
	grpc, http, meter string
	stop              func() error
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func startHouse(t *testing.T) *house {
	t.Helper()
	h := &house{dir: t.TempDir()}
	keys := t.TempDir()
	h.root, h.token = filepath.Join(keys, "root-cert.pem"), filepath.Join(t.TempDir(), "token")
	write(t, h.token, "secret")
	write(t, filepath.Join(h.dir, "pods.yaml"), podsYAML)
	listen := func(at *string) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*at = l.Addr().String()
		return l
	}
	cfg := Config{
		Directory: &Directory{Path: h.dir, Keys: keys, Tokens: map[string]ca.Caller{
			"secret": {Account: ca.Account{Namespace: "istio-system", Name: "ztunnel"}, PodName: "ztunnel-1", PodUID: "z-uid"},
		}},
		GRPC: listen(&h.grpc), HTTP: listen(&h.http), Metrics: listen(&h.meter),
		Logger: slog.New(slog.DiscardHandler), AllowLocalIssuers: true,
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	h.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for deadline := time.Now().Add(patience); h.get(t, h.http, "/ready") != "ready\n"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not ready")
		}
	}
	return h
}

func (h *house) get(t *testing.T, address, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (h *house) connect(t *testing.T) (*proxy, *xds.Client) {
	t.Helper()
	p := &proxy{workloads: map[string]*mesh.Workload{}, policies: map[string]*mesh.Policy{}}
	c := xds.NewClient(xds.Config{
		Address: h.grpc, RootFile: h.root, TokenFile: h.token, ClusterID: "Kubernetes",
		Node:     xds.Node{ID: "ztunnel~10.0.0.2~ztunnel-1.istio-system~istio-system.svc.cluster.local", Metadata: map[string]any{"NODE_NAME": "n1"}},
		Receiver: p, Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p, c
}

func TestFromObjectsToAProxy(t *testing.T) {
	h := startHouse(t)
	p, c := h.connect(t)
	select {
	case <-c.Synced():
	case <-time.After(patience):
		t.Fatalf("not synced: %+v", c.Status())
	}
	const front, db = "Kubernetes//Pod/shop/front", "Kubernetes//Pod/shop/db"
	p.see(t, "the pods are known", func(p *proxy) bool {
		return p.workloads[front] != nil && p.workloads[front].Tunnel == mesh.TunnelHBONE && p.workloads[db] != nil
	})
	write(t, filepath.Join(h.dir, "policy.yaml"), policyYAML)
	p.see(t, "a policy and the workload that names it", func(p *proxy) bool {
		return p.policies["shop/only-front"] != nil && len(p.workloads[db].Policies) == 1
	})
	if err := os.Remove(filepath.Join(h.dir, "policy.yaml")); err != nil {
		t.Fatal(err)
	}
	p.see(t, "a removed policy", func(p *proxy) bool {
		return len(p.policies) == 0 && len(p.workloads[db].Policies) == 0
	})
	write(t, filepath.Join(h.dir, "pods.yaml"), podsYAML[:strings.LastIndex(podsYAML, "---")])
	p.see(t, "a removed pod", func(p *proxy) bool { return p.workloads[db] == nil && p.workloads[front] != nil })
	if len(p.open) > 0 {
		t.Errorf("workloads without a policy that they name: %q", p.open)
	}

	var status []xds.ClientStatus
	if err := json.Unmarshal([]byte(h.get(t, h.http, "/debug/syncz")), &status); err != nil || len(status) != 1 || status[0].Node != "n1" || status[0].Caller != "istio-system/ztunnel" {
		t.Errorf("status %+v, %v", status, err)
	}
	if text := h.get(t, h.http, "/debug/ambientz"); !strings.Contains(text, front) {
		t.Errorf("the model's page does not tell of %s:\n%s", front, text)
	}
	for _, want := range []string{"pilot_xds 1\n", `pilot_xds_pushes{type="address"}`, "citadel_server_root_cert_expiry_timestamp"} {
		if text := h.get(t, h.meter, "/metrics"); !strings.Contains(text, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
}

func TestKeysOfIssuersAreFetched(t *testing.T) {
	h := startHouse(t)
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"keys":[{}]}`) }))
	t.Cleanup(issuer.Close)
	write(t, filepath.Join(h.dir, "tokens.yaml"), `
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: istio-system}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}]
  jwtRules: [{issuer: me, jwksUri: "`+issuer.URL+`/keys"}]
`)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		told := h.get(t, h.http, "/debug/conditions")
		if strings.Contains(told, "RequestAuthentication") && !strings.Contains(told, "keys of issuer") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the keys are not known: %s", told)
		}
	}
}

func TestCertificatesOfTheNodesPodsOnly(t *testing.T) {
	h := startHouse(t)
	client := certs.NewCAClient(certs.CAConfig{Address: h.grpc, RootFile: h.root, TokenFile: h.token})
	for identity, granted := range map[spiffe.ID]bool{
		{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "front"}: true,
		{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "db"}:    false, // on another node
		{TrustDomain: "cluster.local", Namespace: "bank", ServiceAccount: "x"}:     false,
		{TrustDomain: "example.org", Namespace: "shop", ServiceAccount: "front"}:   false,
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
		chain, err := client.Sign(t.Context(), identity, csr, time.Hour)
		if (err == nil) != granted {
			t.Errorf("%s: granted is %v, want %v (%v)", identity, err == nil, granted, err)
			continue
		}
		if !granted {
			continue
		}
		block, _ := pem.Decode([]byte(chain[0]))
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil || len(leaf.URIs) != 1 || leaf.URIs[0].String() != identity.String() {
			t.Errorf("certificate for %v, %v", leaf, err)
		}
		root, err := os.ReadFile(h.root)
		if err != nil || len(chain) != 2 || chain[1] != string(root) {
			t.Errorf("the chain does not end in the roots: %v", err)
		}
	}
	// A stranger gets neither certificates nor the mesh.
	write(t, h.token, "guess")
	p, c := h.connect(t)
	deadline := time.Now().Add(patience)
	for !strings.Contains(c.Status().LastError, "Unauthenticated") {
		if time.Now().After(deadline) {
			t.Fatalf("not refused: %+v", c.Status())
		}
		time.Sleep(2 * time.Millisecond)
	}
	if len(p.workloads) > 0 {
		t.Error("a stranger was told of workloads")
	}
}

func TestTheServerSpeaksOnlyTLS13(t *testing.T) {
	h := startHouse(t)
	pool := x509.NewCertPool()
	root, err := os.ReadFile(h.root)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(root)
	for _, name := range []string{"istiod.istio-system.svc", "istiod.istio-system.svc.cluster.local", "127.0.0.1"} {
		conn, err := tls.Dial("tcp", h.grpc, &tls.Config{RootCAs: pool, ServerName: name, NextProtos: []string{"h2"}})
		if err != nil {
			t.Errorf("as %s: %v", name, err)
			continue
		}
		conn.Close()
	}
	if conn, err := tls.Dial("tcp", h.grpc, &tls.Config{RootCAs: pool, ServerName: "istiod.istio-system.svc", MaxVersion: tls.VersionTLS12}); err == nil {
		conn.Close()
		t.Error("TLS 1.2 is accepted")
	}
}

func TestRunEndsWhileProxiesAreConnected(t *testing.T) {
	h := startHouse(t)
	_, c := h.connect(t)
	<-c.Synced()
	began := time.Now()
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > stopGrace/2 {
		t.Errorf("took %v: streams were not ended", took)
	}
}

func TestConfigurationsThatCannotWork(t *testing.T) {
	l := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for name, cfg := range map[string]Config{
		"nothing to read":  {GRPC: l()},
		"no listener":      {Directory: &Directory{}},
		"an absent source": {GRPC: l(), Directory: &Directory{Path: "/nonexistent", Keys: t.TempDir()}},
	} {
		cfg.Logger = slog.New(slog.DiscardHandler)
		if err := Run(t.Context(), cfg); err == nil {
			t.Errorf("%s: Run accepts it", name)
		}
	}
}

func TestDebugPagesAreForTheSameHostOnly(t *testing.T) {
	p := &plane{cfg: Config{}, log: slog.New(slog.DiscardHandler)}
	for from, want := range map[string]int{"10.0.0.9:1234": http.StatusForbidden, "127.0.0.1:1234": http.StatusServiceUnavailable, "[::1]:99": http.StatusServiceUnavailable} {
		r, err := http.NewRequest(http.MethodGet, "/debug/ambientz", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = from
		w := &answer{}
		p.pages().ServeHTTP(w, r)
		if w.code != want {
			t.Errorf("from %s: %d, want %d", from, w.code, want)
		}
	}
}

// answer is a ResponseWriter that keeps the status.
type answer struct{ code int }

func (a *answer) Header() http.Header         { return http.Header{} }
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }
func (a *answer) WriteHeader(code int)        { a.code = code }

func TestTheControlPlaneServesUnderItsServicesNames(t *testing.T) {
	names := Config{Namespace: "mesh", ServingNames: []string{"istiod.example.org"}}.servingNames()
	for _, want := range []string{"istiod.mesh.svc", "istiod.example.org"} {
		if !slices.Contains(names, want) {
			t.Errorf("serves as %q, want %s among them", names, want)
		}
	}
}

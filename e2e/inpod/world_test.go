package inpod_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/controlplane"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/istiod-lite/snapshot"
	"github.com/ambit-mesh/ambit/ztunnel"
)

// world is a control plane, a CA, and nodes with real ztunnels and pods.
type world struct {
	t     *testing.T
	ca    *certstest.CA
	nodes []*node
	xds   *xds.Server
	addr  string // of the control plane
	roots string
	cert  tls.Certificate
	grpc  *grpc.Server
	ttl   time.Duration // of certificates
	pings time.Duration // of tunnels, and how long their answers may take; zero is the product's
	spans tracing.Config
	// refusing are the identities for which the CA does not sign.
	refusing []spiffe.ID

	mu      sync.Mutex
	model   mesh.Model
	latest  *snapshot.Ztunnel
	version uint64
}

// Snapshot implements xds.Source.
func (w *world) Snapshot(xds.Peer) *xds.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &xds.Snapshot{Generation: w.version, Types: w.latest.Types}
}

// change edits a copy of the model and sends it.
func (w *world) change(edit func(m *mesh.Model)) {
	w.mu.Lock()
	w.model = mesh.Model{Workloads: maps.Clone(w.model.Workloads), Services: maps.Clone(w.model.Services), Policies: maps.Clone(w.model.Policies)}
	edit(&w.model)
	w.latest = snapshot.ForZtunnels(w.latest, w.model)
	w.version++
	w.mu.Unlock()
	w.xds.Notify()
}

// Sign implements certs.CA.
func (w *world) Sign(ctx context.Context, id spiffe.ID, csr []byte, ttl time.Duration) ([]string, error) {
	if slices.Contains(w.refusing, id) {
		return nil, fmt.Errorf("%s gets no certificate", id)
	}
	return w.ca.Sign(ctx, id, csr, ttl)
}

// newWorld boots nodes joined to each other, each with its ztunnel.
func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	w := bare(t, names...)
	w.boot()
	return w
}

// bare is a world in which nothing runs yet.
func bare(t *testing.T, names ...string) *world {
	t.Helper()
	w := &world{t: t, ca: certstest.New(t), latest: snapshot.ForZtunnels(nil, mesh.Model{}), model: mesh.Model{
		Workloads: map[string]*mesh.Workload{}, Services: map[mesh.ServiceKey]*mesh.Service{}, Policies: map[mesh.PolicyKey]*mesh.Policy{},
	}}
	for i, name := range names {
		w.nodes = append(w.nodes, newNodeNet(t, name, i+1))
	}
	if len(w.nodes) > 1 {
		wire(t, w.nodes[0], w.nodes[1])
	}
	return w
}

func (w *world) boot() {
	w.t.Helper()
	w.serveXDS()
	for _, n := range w.nodes {
		n.agent = newAgent(w.t)
		n.start(w)
	}
}

func (w *world) serveXDS() {
	var pemRoot []byte
	w.cert, pemRoot = serverCertificate(w.t)
	w.roots = filepath.Join(w.t.TempDir(), "root-cert.pem")
	if err := os.WriteFile(w.roots, pemRoot, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.addr = "127.0.0.1:0"
	w.back()
	w.t.Cleanup(func() { w.away() })
}

// back lets the control plane serve, at the address where it was before.
func (w *world) back() {
	w.t.Helper()
	l, err := net.Listen("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = l.Addr().String()
	w.xds = xds.NewServer(xds.ServerConfig{Source: w, Late: snapshot.Late, Hold: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	w.grpc = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{w.cert}, MinVersion: tls.VersionTLS13})))
	w.xds.Register(w.grpc)
	go w.grpc.Serve(l)
	w.ca.Fail(nil)
}

// away ends it, and the CA with it.
func (w *world) away() {
	w.ca.Fail(errors.New("the control plane is away"))
	w.xds.Close()
	w.grpc.Stop()
}

func serverCertificate(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "control plane"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// agent stands for the CNI agent of one node and keeps its ztunnels.
type agent struct {
	t    *testing.T
	path string

	mu       sync.Mutex
	pods     []*pod
	conns    []*zds.Conn
	ztunnels []*runningZtunnel
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{t: t, path: filepath.Join(t.TempDir(), "ztunnel.sock")}
	l, err := zds.Listen(a.path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			a.snapshot(c)
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
		for _, c := range a.conns {
			c.Close()
		}
	})
	return a
}

func (a *agent) snapshot(c *zds.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ctx := context.Background()
	if _, err := c.Hello(ctx); err != nil {
		a.t.Errorf("hello: %v", err)
		return
	}
	for _, p := range a.pods {
		if err := c.Add(ctx, p.zds(), p.ns.File()); err != nil {
			a.t.Logf("snapshot: %s: %v", p.name, err)
		}
	}
	if err := c.SnapshotSent(ctx); err != nil {
		a.t.Errorf("snapshot: %v", err)
	}
	a.conns = append(a.conns, c)
}

// enrol tells the newest ztunnel of a pod and gives its answer.
func (a *agent) enrol(p *pod) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pods = append(a.pods, p)
	a.t.Cleanup(a.forget)
	return a.conns[len(a.conns)-1].Add(context.Background(), p.zds(), p.ns.File())
}

// forget keeps a ztunnel that comes while a test ends from being told of pods
// whose namespaces are just being closed.
func (a *agent) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pods = nil
}

// release tells every ztunnel that a pod is no longer served.
func (a *agent) release(p *pod) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.conns {
		if c.Err() != nil {
			continue
		}
		if err := c.Del(context.Background(), p.uid); err != nil {
			a.t.Errorf("releasing %s: %v", p.name, err)
		}
	}
	for i, have := range a.pods {
		if have == p {
			a.pods = append(a.pods[:i], a.pods[i+1:]...)
			return
		}
	}
}

// runningZtunnel is one real ztunnel.
type runningZtunnel struct {
	log     *logBuffer
	stop    context.CancelFunc
	done    chan error
	admin   string
	ready   string
	metrics string
}

// logBuffer collects JSON records.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) records() []map[string]any {
	b.mu.Lock()
	text := b.buf.String()
	b.mu.Unlock()
	var out []map[string]any
	for line := range strings.Lines(text) {
		var r map[string]any
		if json.Unmarshal([]byte(line), &r) == nil {
			out = append(out, r)
		}
	}
	return out
}

// start runs a ztunnel on the node until the test ends, and waits until it is
// ready.
func (n *node) start(w *world) *runningZtunnel {
	w.t.Helper()
	ports := freePorts(w.t, 3)
	z := &runningZtunnel{log: &logBuffer{}, done: make(chan error, 1), admin: fmt.Sprintf("http://127.0.0.1:%d", ports[0]), ready: fmt.Sprintf("http://127.0.0.1:%d/healthz/ready", ports[2])}
	z.metrics = fmt.Sprintf("http://127.0.0.1:%d/metrics", ports[1])
	ctx, cancel := context.WithCancel(context.Background())
	z.stop = cancel
	go func() {
		z.done <- ztunnel.Run(ctx, ztunnel.Config{
			Self:         ztunnel.Self{Name: "ztunnel-" + n.name, Namespace: "istio-system", Node: n.name},
			ControlPlane: controlplane.Endpoint{Address: w.addr, RootFile: w.roots},
			Authority:    w, CertificateTTL: w.ttl,
			Tuning:      h2.Tuning{PingInterval: w.pings, PingTimeout: w.pings},
			AgentSocket: n.path, KeptDir: n.kept, KeptPatience: 100 * time.Millisecond,
			AdminPort: ports[0], MetricsPort: ports[1], ReadyPort: ports[2],
			DrainDeadline: 3 * time.Second, IdleFlow: time.Second, Tracing: w.spans, ResolvConf: n.resolv,
			Logger: slog.New(slog.NewJSONHandler(z.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
		})
	}()
	w.t.Cleanup(func() { z.end(w.t) })
	n.mu.Lock()
	n.ztunnels = append(n.ztunnels, z)
	n.mu.Unlock()
	eventually(w.t, func() error { return get(z.ready) })
	return z
}

// end stops a ztunnel and waits; it may be called twice.
func (z *runningZtunnel) end(t *testing.T) {
	t.Helper()
	z.stop()
	select {
	case err := <-z.done:
		z.done <- nil
		if err != nil {
			t.Errorf("ztunnel ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("ztunnel does not end")
	}
	if t.Failed() {
		z.log.mu.Lock()
		t.Logf("log of a ztunnel:\n%s", z.log.buf.String())
		z.log.mu.Unlock()
	}
}

func freePorts(t *testing.T, n int) []uint16 {
	t.Helper()
	var ports []uint16
	for range n {
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, uint16(l.Addr().(*net.TCPAddr).Port))
	}
	return ports
}

// eventually tries until it succeeds.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("still: %v", err)
}

func needsRoot(t *testing.T) {
	t.Helper()
	linuxtest.NewNetNS(t) // skips with the reason
}

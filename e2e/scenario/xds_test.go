package scenario

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/push"
)

// patience is ten times what a step may take on a busy machine.
const patience = 30 * time.Second

// TestScenariosOverXDS runs every scenario again with the real control plane's
// pusher and the real client between snapshot and view: they order and cut the
// responses as they like, and every promise must hold after each.
func TestScenariosOverXDS(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			runOverXDS(t, stepsOf(a))
		})
	}
}

func runOverXDS(t *testing.T, steps []*step) {
	c := newChain()
	w := &watched{t: t, store: c.store}
	pusher := push.New(push.Config{Logger: slog.New(slog.DiscardHandler)})
	connect(t, pusher, w)
	for _, s := range steps {
		if s.files["lost.txt"] != nil {
			continue // a pusher loses nothing
		}
		before := w.begin(s)
		model, _, _, err := c.change(s)
		if err != nil {
			t.Fatal(err)
		}
		pusher.Publish(model, time.Now())
		model = ofZtunnels(model)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		v, err := c.store.Wait(ctx, func(v *view.View) bool { return cmp.Equal(model, held(v), same...) })
		cancel()
		if err != nil {
			t.Fatalf("step %q: the proxy does not come to hold the model: %v\n%s", s.name, err, cmp.Diff(model, held(c.store.View()), same...))
		}
		checkBetween(t, s, before, w.end(), fatesOf(t, v, s))
	}
}

// watched is a store that looks at the step's connections after each response.
type watched struct {
	t     *testing.T
	store *view.Store

	mu      sync.Mutex
	step    *step
	between []map[string]bool
}

func (w *watched) begin(s *step) (before map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.step, w.between = s, nil
	return fatesOf(w.t, w.store.View(), s)
}

func (w *watched) end() []map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.between
}

// Receive implements xds.Receiver.
func (w *watched) Receive(ctx context.Context, u xds.Update) []xds.Rejection {
	w.mu.Lock()
	defer w.mu.Unlock()
	rejected := w.store.Receive(ctx, u)
	for _, r := range rejected {
		w.t.Errorf("the proxy rejects %s: %v", r.Name, r.Reason)
	}
	if w.step != nil {
		w.between = append(w.between, fatesOf(w.t, w.store.View(), w.step))
	}
	return rejected
}

// connect joins a pusher and a receiver by real gRPC over TLS, in memory.
func connect(t *testing.T, pusher *push.Pusher, receiver xds.Receiver) {
	cert, rootFile := certificate(t)
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	pusher.Register(g)
	client := xds.NewClient(xds.Config{
		Address: "istiod.test:15012", RootFile: rootFile, Node: xds.Node{ID: "ztunnel~10.0.0.1~z.istio-system~istio-system.svc.cluster.local"},
		Receiver: receiver, Dial: func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) },
		Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	wg.Go(func() { _ = client.Run(ctx) })
	t.Cleanup(func() { cancel(); pusher.Close(); g.Stop(); wg.Wait() })
}

// certificate is one for the control plane, and the file of its root.
func certificate(t *testing.T) (tls.Certificate, string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"istiod.test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

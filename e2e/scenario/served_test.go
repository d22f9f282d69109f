package scenario

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/xds"
	istiodlite "github.com/ambit-mesh/ambit/istiod-lite"
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
)

// slow is a proxy that takes updates only while it is let.
type slow struct {
	*view.Store
	mu sync.Mutex
}

func (s *slow) Receive(ctx context.Context, u xds.Update) []xds.Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.Receive(ctx, u)
}

// controlPlane runs one over a directory and gives the way to its pages and a
// client's configuration.
func controlPlane(t *testing.T, dir string) (*reach.Door, xds.Config) {
	t.Helper()
	keys, token := t.TempDir(), filepath.Join(t.TempDir(), "token")
	write(t, token, "secret")
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	cfg := istiodlite.Config{
		Directory: &istiodlite.Directory{Path: dir, Keys: keys, Tokens: map[string]ca.Caller{"secret": {Account: ca.Account{Namespace: "istio-system", Name: "ztunnel"}}}},
		GRPC:      listen(), HTTP: listen(), Logger: slog.New(slog.DiscardHandler),
	}
	door := &reach.Door{Name: "istiod", URL: "http://" + cfg.HTTP.Addr().String()}
	client := xds.Config{
		Address: cfg.GRPC.Addr().String(), RootFile: filepath.Join(keys, "root-cert.pem"), TokenFile: token, Logger: slog.New(slog.DiscardHandler),
		Node: xds.Node{ID: "ztunnel~10.0.0.2~ztunnel-1.istio-system~istio-system.svc.cluster.local", Metadata: map[string]any{"NODE_NAME": "n1"}},
	}
	task(t, func(ctx context.Context) error { return istiodlite.Run(ctx, cfg) })
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := door.Get(t.Context(), "/ready"); err == nil {
			return door, client
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// task runs until the end of the test.
func task(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
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

// TestApplyWaitsUntilTheProxyHasTaken asks a real control plane, as `ambit
// apply --wait` does, about a policy that a real proxy has not taken yet.
func TestApplyWaitsUntilTheProxyHasTaken(t *testing.T) {
	dir := t.TempDir()
	door, config := controlPlane(t, dir)
	proxy := &slow{Store: view.NewStore()}
	config.Receiver = proxy
	client := xds.NewClient(config)
	task(t, client.Run)
	<-client.Synced()
	running := func(context.Context) ([]ask.Proxy, error) {
		return []ask.Proxy{{Name: "istio-system/ztunnel-1", Kind: "ztunnel", Node: "n1"}}, nil
	}
	policy := ask.Version{APIVersion: "security.istio.io/v1", Kind: "AuthorizationPolicy", Namespace: "shop", Name: "closed", ResourceVersion: "41"}

	proxy.mu.Lock() // it reads nothing more
	write(t, filepath.Join(dir, "policy.yaml"), `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: shop, resourceVersion: "42"}
spec: {}
`)
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("not yet"))
	defer cancel()
	last, err := ask.Await(ctx, []*reach.Door{door}, running, []ask.Version{policy})
	if err == nil || last == nil || !strings.Contains(err.Error(), "not yet: ztunnel istio-system/ztunnel-1 has acknowledged") {
		t.Errorf("while the proxy does not read: %v, %+v", err, last)
	}
	proxy.mu.Unlock()
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	served, err := ask.Await(ctx, []*reach.Door{door}, running, []ask.Version{policy})
	if err != nil {
		t.Fatal(err)
	}
	if len(proxy.View().AllPolicies()) != 1 {
		t.Error("it is said to be served, and the proxy has no policy")
	}
	if served.Objects[0].State != "held" || served.Objects[0].Generation == 0 || len(served.Objects[0].Conditions) == 0 {
		t.Errorf("said of it: %+v", served.Objects)
	}
	report, err := ask.Status(t.Context(), []ask.Opener{func(context.Context) (*reach.Door, error) { return door, nil }}, nil)
	if err != nil || len(report.Proxies) != 1 || report.Behind() || report.Proxies[0].Proxy != "istio-system/ztunnel-1" || report.Proxies[0].Node != "n1" {
		t.Errorf("status: %+v, %v", report, err)
	}
	policy.ResourceVersion = "43"
	if s, err := ask.Served(t.Context(), []*reach.Door{door}, nil, []ask.Version{policy}); err != nil || len(s.Missing) != 1 {
		t.Errorf("a later version: %+v, %v", s, err)
	}
	if _, err := door.Get(t.Context(), "/debug/nothing"); err == nil || !strings.Contains(err.Error(), http.StatusText(http.StatusNotFound)) {
		t.Errorf("a page that is none: %v", err)
	}
}

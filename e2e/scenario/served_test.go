package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/health"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/xds"
	istiodlite "github.com/ambit-mesh/ambit/istiod-lite"
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
)

// slow is a proxy that takes updates only while it is let. While it is deaf it
// accepts them and does nothing about it.
type slow struct {
	*view.Store
	mu   sync.Mutex
	deaf atomic.Bool
}

func (s *slow) Receive(ctx context.Context, u xds.Update) []xds.Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf.Load() {
		return nil
	}
	return s.Store.Receive(ctx, u)
}

// open is the way to what it says of itself.
func (s *slow) open(t *testing.T) ask.Opener {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(health.Proxy{Configuration: s.View().Configuration()})
	}))
	t.Cleanup(server.Close)
	return func(context.Context) (*reach.Door, error) { return &reach.Door{Name: "ztunnel", URL: server.URL}, nil }
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

// only is one replica of the control plane, and no other.
func only(door *reach.Door) func(context.Context) ([]ask.Opener, error) {
	return func(context.Context) ([]ask.Opener, error) {
		return []ask.Opener{func(context.Context) (*reach.Door, error) { return door, nil }}, nil
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
	self := ask.Proxy{Name: "istio-system/ztunnel-1", Kind: "ztunnel", Node: "n1", Admin: proxy.open(t)}
	running := func(context.Context) ([]ask.Proxy, error) { return []ask.Proxy{self}, nil }
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
	last, err := ask.Await(ctx, only(door), running, []ask.Version{policy})
	if err == nil || last == nil || !strings.Contains(err.Error(), "not yet: ztunnel istio-system/ztunnel-1 has acknowledged") {
		t.Errorf("while the proxy does not read: %v, %+v", err, last)
	}
	proxy.mu.Unlock()
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	served, err := ask.Await(ctx, only(door), running, []ask.Version{policy})
	if err != nil {
		t.Fatal(err)
	}
	if len(proxy.View().AllPolicies()) != 1 {
		t.Error("it is said to be served, and the proxy has no policy")
	}
	if served.Objects[0].State != "held" || served.Objects[0].Generation == 0 || len(served.Objects[0].Conditions) == 0 {
		t.Errorf("said of it: %+v", served.Objects)
	}
	report, err := ask.Status(t.Context(), []ask.Opener{func(context.Context) (*reach.Door, error) { return door, nil }}, []ask.Proxy{self})
	if err != nil || len(report.Proxies) != 1 || report.Behind() || report.Proxies[0].Serves != proxy.View().Configuration() || report.Proxies[0].Proxy != "istio-system/ztunnel-1" || report.Proxies[0].Node != "n1" {
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

// TestTheWaitEndsWhenTheProxyDecidesByIt: what it has acknowledged is not
// enough. Nor is it for an object that is deleted.
func TestTheWaitEndsWhenTheProxyDecidesByIt(t *testing.T) {
	dir := t.TempDir()
	door, config := controlPlane(t, dir)
	proxy := &slow{Store: view.NewStore()}
	config.Receiver = proxy
	client := xds.NewClient(config)
	task(t, client.Run)
	<-client.Synced()
	self := ask.Proxy{Name: "istio-system/ztunnel-1", Kind: "ztunnel", Admin: proxy.open(t)}
	await := func(limit time.Duration, v ask.Version) error {
		ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("not yet"))
		defer cancel()
		_, err := ask.Await(ctx, only(door), func(context.Context) ([]ask.Proxy, error) { return []ask.Proxy{self}, nil }, []ask.Version{v})
		return err
	}
	file := filepath.Join(dir, "policy.yaml")
	policy := func(version string) ask.Version {
		write(t, file, "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: closed, namespace: shop, resourceVersion: \""+version+"\"}\nspec: {action: DENY, rules: [{to: [{operation: {ports: [\""+version+"\"]}}]}]}\n")
		return ask.Version{APIVersion: "security.istio.io/v1", Kind: "AuthorizationPolicy", Namespace: "shop", Name: "closed", ResourceVersion: version}
	}
	if err := await(patience, policy("41")); err != nil {
		t.Fatal(err)
	}
	proxy.deaf.Store(true)
	if err := await(time.Second, policy("42")); err == nil || !strings.Contains(err.Error(), "not yet: ztunnel istio-system/ztunnel-1 has acknowledged") || !strings.Contains(err.Error(), "and decides with") {
		t.Errorf("while it is deaf: %v", err)
	}
	proxy.deaf.Store(false)
	gone := policy("43")
	if err := await(patience, gone); err != nil {
		t.Fatal(err)
	}
	gone.Gone = true
	if err := await(300*time.Millisecond, gone); err == nil || !strings.Contains(err.Error(), "istiod has not read authorizationpolicy/closed in shop") {
		t.Errorf("while it is there: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := await(patience, gone); err != nil {
		t.Fatal(err)
	}
	if left := proxy.View().AllPolicies(); len(left) > 0 {
		t.Errorf("it is said to be gone, and the proxy has %d policies", len(left))
	}
}

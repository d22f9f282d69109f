package ztunnel

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/admin/admintest"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/zds"
)

const local = `
workloads: [{uid: k//Pod/shop/web, name: web, namespace: shop, serviceAccount: web, workloadIps: [10.1.0.6], protocol: HBONE}]
`

// running is a ztunnel on free ports with a local file and an agent's socket.
type running struct {
	t      *testing.T
	config Config
	done   chan error
}

func run(t *testing.T, ctx context.Context) *running {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "local.yaml")
	if err := os.WriteFile(path, []byte(local), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, done: make(chan error, 1), config: Config{
		LocalFile: path, Authority: certstest.New(t), AgentSocket: filepath.Join(dir, "z.sock"),
		AdminPort: admintest.FreePort(t), MetricsPort: admintest.FreePort(t), ReadyPort: admintest.FreePort(t),
	}}
	go func() { r.done <- Run(ctx, r.config) }()
	return r
}

// until waits for an answer.
func (r *running) until(port uint16, path string, status int, contains string) string {
	r.t.Helper()
	return admintest.Until(r.t, port, path, status, contains)
}

func TestItIsReadyOnceTheAgentsPodsAreKnownAndQuitsWhenTold(t *testing.T) {
	r := run(t, t.Context())
	r.until(r.config.ReadyPort, "/healthz/ready", 500, "not ready, pending: workload proxy manager")
	l, err := zds.Listen(r.config.AgentSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	agent, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	if _, err := agent.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := agent.SnapshotSent(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.until(r.config.ReadyPort, "/healthz/ready", 200, "ready")
	metrics := r.until(r.config.MetricsPort, "/stats/prometheus", 200, "istio_build")
	for _, name := range []string{"workload_manager_active_proxy_count 0", "istio_tcp_sockets_open", "process_open_fds", "go_goroutines", "ambit_tunnels_open 0"} {
		if !strings.Contains(metrics, name) {
			t.Errorf("metrics lack %s", name)
		}
	}
	var dump struct {
		Workloads []struct{ UID, Protocol string }
		Config    map[string]any
	}
	if err := json.Unmarshal([]byte(r.until(r.config.AdminPort, "/config_dump", 200, "workloads")), &dump); err != nil {
		t.Fatal(err)
	}
	if len(dump.Workloads) != 1 || dump.Workloads[0].UID != "k//Pod/shop/web" || dump.Workloads[0].Protocol != "HBONE" {
		t.Errorf("dump %+v", dump)
	}
	resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/quitquitquit", r.config.AdminPort), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	admintest.Ends(t, r.done, "")
	if _, _, err := admintest.Get(r.config.ReadyPort, "/healthz/ready"); err == nil {
		t.Error("it still answers")
	}
}

func TestItEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := run(t, ctx)
	r.until(r.config.ReadyPort, "/healthz/ready", 500, "")
	cancel()
	admintest.Ends(t, r.done, "")
}

func TestWhatCannotWorkIsToldAtOnce(t *testing.T) {
	port := admintest.TakenPort(t)
	file := filepath.Join(t.TempDir(), "local.yaml")
	if err := os.WriteFile(file, []byte(local), 0o600); err != nil {
		t.Fatal(err)
	}
	good := func() Config {
		return Config{LocalFile: file, Authority: certstest.New(t), AdminPort: admintest.FreePort(t), MetricsPort: admintest.FreePort(t), ReadyPort: admintest.FreePort(t)}
	}
	for _, c := range []struct {
		name, want string
		spoil      func(*Config)
	}{
		{"no state", "neither a control plane nor a local file", func(c *Config) { c.LocalFile = "" }},
		{"no CA", "no certificate authority", func(c *Config) { c.Authority = nil }},
		{"no such file", "no such file", func(c *Config) { c.LocalFile += "x" }},
		{"the admin port is taken", "address already in use", func(c *Config) { c.AdminPort = port }},
		{"the metrics port is taken", "address already in use", func(c *Config) { c.MetricsPort = port }},
		{"the readiness port is taken", "address already in use", func(c *Config) { c.ReadyPort = port }},
	} {
		config := good()
		c.spoil(&config)
		done := make(chan error, 1)
		go func() { done <- Run(t.Context(), config) }()
		admintest.Ends(t, done, c.want)
	}
}

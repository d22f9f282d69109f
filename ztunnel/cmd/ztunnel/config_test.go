package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/controlplane"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/settings"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel"
)

func env(pairs map[string]string) environment { return func(name string) string { return pairs[name] } }

func TestTheEnvironmentOfADaemonSetIsUnderstood(t *testing.T) {
	c, err := env(map[string]string{
		"XDS_ADDRESS": "https://istiod.istio-system.svc:15012", "XDS_ROOT_CA": "/root-cert.pem", "ALT_XDS_HOSTNAME": "istiod",
		"CA_ADDRESS": "ca:15012", "CA_ROOT_CA": "/root-cert.pem", "AUTH_TOKEN": "/token",
		"INPOD_UDS": "/run/z.sock", "POD_NAME": "ztunnel-x", "POD_NAMESPACE": "istio-system", "NODE_NAME": "n1", "INSTANCE_IP": "10.0.0.9",
		"SERVICE_ACCOUNT": "ztunnel", "CLUSTER_ID": "c1", "TERMINATION_GRACE_PERIOD_SECONDS": "30", "SECRET_TTL": "1h",
		"PACKET_MARK": "0x539", "ENABLE_ORIG_SRC": "false", "KEEPALIVE_TIME": "60s",
	}).config()
	if err != nil {
		t.Fatal(err)
	}
	keep := linux.KeepAlive
	keep.Idle = time.Minute
	want := ztunnel.Config{
		Self:         ztunnel.Self{Name: "ztunnel-x", Namespace: "istio-system", ServiceAccount: "ztunnel", IP: "10.0.0.9", Node: "n1", ClusterID: "c1"},
		ControlPlane: controlplane.Endpoint{Address: "istiod.istio-system.svc:15012", ServerName: "istiod", RootFile: "/root-cert.pem", TokenFile: "/token"},
		CA:           controlplane.Endpoint{Address: "ca:15012", RootFile: "/root-cert.pem", TokenFile: "/token"},
		AgentSocket:  "/run/z.sock", KeptDir: "/run/kept", CertificateTTL: time.Hour, Mark: 0x539, NoOriginalSource: true, KeepAlive: keep,
		DrainDeadline: 25 * time.Second,
	}
	c.Self.Metadata = nil // of the machine that runs the test
	if d := cmp.Diff(want, c); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestDefaultsFollowWhereItRuns(t *testing.T) {
	in, err := env(map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1"}).config()
	if err != nil || in.KeptDir != "/var/run/ztunnel/kept" || in.ControlPlane.Address != "istiod.istio-system.svc:15012" || in.CA.Address != in.ControlPlane.Address {
		t.Errorf("in a cluster: %+v, %v", in.ControlPlane, err)
	}
	out, err := env(map[string]string{"KEPT_DIR": "none"}).config()
	if err != nil || out.KeptDir != "" || out.ControlPlane.Address != "localhost:15012" || out.DrainDeadline != 5*time.Second || out.NoReusePort || out.NoOriginalSource {
		t.Errorf("outside: %+v, %v", out, err)
	}
}

func TestWhereSpansGo(t *testing.T) {
	for _, tt := range []struct {
		vars map[string]string
		want tracing.Config
	}{
		{nil, tracing.Config{}},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, tracing.Config{Endpoint: "http://c:4317", Sample: 0.01}},
		{
			map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_TRACES_SAMPLER_ARG": "0"},
			tracing.Config{Endpoint: "http://c:4318", HTTP: true},
		},
	} {
		if c, err := env(tt.vars).config(); err != nil || c.Tracing != tt.want {
			t.Errorf("%v: %+v, %v; want %+v", tt.vars, c.Tracing, err, tt.want)
		}
	}
}

func TestADedicatedProxyServesOnePod(t *testing.T) {
	c, err := env(map[string]string{"PROXY_MODE": "dedicated", "PROXY_WORKLOAD_INFO": "shop/web-0/web"}).config()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&zds.Pod{UID: "web-0", Namespace: "shop", Name: "web-0", ServiceAccount: "web"}, c.Only); d != "" {
		t.Errorf("pod (-want +got):\n%s", d)
	}
	if c.Mark >= 0 {
		t.Errorf("mark %d, want none", c.Mark)
	}
}

func TestNodeMetadataIsPassedOn(t *testing.T) {
	r := &settings.Reader{}
	got := metadata(r, []string{"ISTIO_META_A=x", `ISTIO_METAJSON_B={"c":[1]}`, "PATH=/bin"})
	if d := cmp.Diff(map[string]any{"A": "x", "B": map[string]any{"c": []any{1.0}}}, got); d != "" || r.Err() != nil {
		t.Errorf("%v (-want +got):\n%s", r.Err(), d)
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	for name, value := range map[string]string{
		"XDS_ADDRESS": "istiod", "SECRET_TTL": "soon", "PACKET_MARK": "-1", "ADMIN_PORT": "70000", "INPOD_PORT_REUSE": "perhaps",
		"PROXY_MODE": "lonely", "TERMINATION_GRACE_PERIOD_SECONDS": "x", "KEEPALIVE_TIME": "0s",
	} {
		if _, err := env(map[string]string{name: value}).config(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	if _, err := env(map[string]string{"PROXY_MODE": "dedicated", "PROXY_WORKLOAD_INFO": "web"}).config(); err == nil || !strings.Contains(err.Error(), "PROXY_WORKLOAD_INFO") {
		t.Errorf("dedicated for nobody: %v", err)
	}
}

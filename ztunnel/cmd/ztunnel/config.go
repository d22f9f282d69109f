package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/controlplane"
	"github.com/ambit-mesh/ambit/internal/drain"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/settings"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel"
)

// environment looks a variable up, as os.Getenv does.
type environment func(name string) string

// config reads the variables of dataplane spec 0.3 that mean something here.
func (env environment) config() (ztunnel.Config, error) {
	r := &settings.Reader{Lookup: env}
	near := "localhost:15012"
	if env("KUBERNETES_SERVICE_HOST") != "" {
		near = controlplane.InCluster
	}
	c := ztunnel.Config{
		Self: ztunnel.Self{
			Name: env("POD_NAME"), Namespace: env("POD_NAMESPACE"), ServiceAccount: env("SERVICE_ACCOUNT"),
			IP: env("INSTANCE_IP"), Node: env("NODE_NAME"), TrustDomain: env("TRUST_DOMAIN"), Network: env("NETWORK"),
			ClusterID: cmp.Or(env("CLUSTER_ID"), env("ISTIO_META_CLUSTER_ID")), Metadata: metadata(r, os.Environ()),
		},
		ControlPlane:     controlplane.ReadEndpoint(r, "XDS", near),
		CA:               controlplane.ReadEndpoint(r, "CA", near),
		LocalFile:        env("LOCAL_XDS_PATH"),
		CertificateTTL:   r.Duration("SECRET_TTL"),
		RevocationsFile:  r.Lookup("CRL_PATH"),
		AgentSocket:      env("INPOD_UDS"),
		KeptDir:          keptDir(env("KEPT_DIR"), env("INPOD_UDS")),
		AdminPort:        r.Port("ADMIN_PORT"),
		MetricsPort:      r.Port("STATS_PORT"),
		ReadyPort:        r.Port("READINESS_PORT"),
		Mark:             r.Number("PACKET_MARK"),
		NoReusePort:      !r.Boolean("INPOD_PORT_REUSE", true),
		NoOriginalSource: !r.Boolean("ENABLE_ORIG_SRC", true),
		KeepAlive:        keepAlive(r),
		NoDNS:            !r.Boolean("ISTIO_META_DNS_CAPTURE", true),
		Domain:           env("CLUSTER_DOMAIN"),
		IdleTunnel:       r.Duration("POOL_UNUSED_RELEASE_TIMEOUT"),
		MaxTunnelStreams: r.Number("POOL_MAX_STREAMS_PER_CONNECTION"),
		Tuning: h2.Tuning{
			MaxStreamWindow: r.Number("HTTP2_STREAM_WINDOW_SIZE"), Window: r.Number("HTTP2_CONNECTION_WINDOW_SIZE"),
		},
		Tracing: traced(r),
		DrainDeadline: drain.Deadline(r.Duration("CONNECTION_TERMINATION_DEADLINE"),
			time.Duration(r.Number("TERMINATION_GRACE_PERIOD_SECONDS"))*time.Second),
	}
	env.mode(r, &c)
	return c, r.Err()
}

// traced reads where spans go, by OpenTelemetry's names. Nobody but this proxy
// asks for a connection to be traced, so that a share that is not said is one
// in a hundred.
func traced(r *settings.Reader) tracing.Config {
	c := tracing.Config{
		Endpoint: r.Lookup("OTEL_EXPORTER_OTLP_ENDPOINT"), HTTP: strings.HasPrefix(r.Lookup("OTEL_EXPORTER_OTLP_PROTOCOL"), "http"),
		Sample: r.Share("OTEL_TRACES_SAMPLER_ARG"),
	}
	if c.Endpoint != "" && r.Lookup("OTEL_TRACES_SAMPLER_ARG") == "" {
		c.Sample = 0.01
	}
	return c
}

// keptDir is beside the agent's socket if nothing is said; "none" is nowhere.
func keptDir(said, socket string) string {
	switch said {
	case "":
		return filepath.Join(filepath.Dir(cmp.Or(socket, zds.DefaultPath)), "kept")
	case "none":
		return ""
	}
	return said
}

// mode reads whom this proxy serves.
func (env environment) mode(r *settings.Reader, c *ztunnel.Config) {
	switch mode := env("PROXY_MODE"); mode {
	case "", "shared":
	case "dedicated":
		part := strings.Split(env("PROXY_WORKLOAD_INFO"), "/")
		if len(part) != 3 {
			r.Fail("PROXY_WORKLOAD_INFO", errors.New("want namespace/name/service-account"))
			return
		}
		c.Only = &zds.Pod{UID: part[1], Namespace: part[0], Name: part[1], ServiceAccount: part[2]}
		if c.Mark == 0 {
			c.Mark = -1 // nothing captures this proxy's own packets
		}
	default:
		r.Fail("PROXY_MODE", fmt.Errorf("%q is neither shared nor dedicated", mode))
	}
}

// keepAlive reads how connections that have broken are noticed.
func keepAlive(r *settings.Reader) net.KeepAliveConfig {
	k := linux.KeepAlive
	k.Enable = r.Boolean("KEEPALIVE_ENABLED", true)
	if d := r.Duration("KEEPALIVE_TIME"); d > 0 {
		k.Idle = d
	}
	if d := r.Duration("KEEPALIVE_INTERVAL"); d > 0 {
		k.Interval = d
	}
	if n := r.Number("KEEPALIVE_RETRIES"); n > 0 {
		k.Count = n
	}
	return k
}

// metadata collects ISTIO_META_x and ISTIO_METAJSON_x for the control plane.
func metadata(r *settings.Reader, environ []string) map[string]any {
	out := map[string]any{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if key, ok := strings.CutPrefix(name, "ISTIO_META_"); ok {
			out[key] = value
		} else if key, ok := strings.CutPrefix(name, "ISTIO_METAJSON_"); ok {
			var v any
			if err := json.Unmarshal([]byte(value), &v); err != nil {
				r.Fail(name, err)
				continue
			}
			out[key] = v
		}
	}
	return out
}

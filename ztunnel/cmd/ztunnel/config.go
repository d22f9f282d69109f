package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/drain"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel"
)

// environment looks a variable up, as os.Getenv does.
type environment func(name string) string

// config reads the variables of dataplane spec 0.3 that mean something here.
func (env environment) config() (ztunnel.Config, error) {
	var r reader
	c := ztunnel.Config{
		Self: ztunnel.Self{
			Name: env("POD_NAME"), Namespace: env("POD_NAMESPACE"), ServiceAccount: env("SERVICE_ACCOUNT"),
			IP: env("INSTANCE_IP"), Node: env("NODE_NAME"), Network: env("NETWORK"),
			ClusterID: env.first("CLUSTER_ID", "ISTIO_META_CLUSTER_ID"), Metadata: r.metadata(os.Environ()),
		},
		ControlPlane:     env.endpoint(&r, "XDS"),
		CA:               env.endpoint(&r, "CA"),
		LocalFile:        env("LOCAL_XDS_PATH"),
		CertificateTTL:   r.duration(env, "SECRET_TTL"),
		AgentSocket:      env("INPOD_UDS"),
		AdminPort:        r.port(env, "ADMIN_PORT"),
		MetricsPort:      r.port(env, "STATS_PORT"),
		ReadyPort:        r.port(env, "READINESS_PORT"),
		Mark:             r.number(env, "PACKET_MARK"),
		NoReusePort:      !r.boolean(env, "INPOD_PORT_REUSE", true),
		NoOriginalSource: !r.boolean(env, "ENABLE_ORIG_SRC", true),
		KeepAlive:        r.keepAlive(env),
		IdleTunnel:       r.duration(env, "POOL_UNUSED_RELEASE_TIMEOUT"),
		MaxTunnelStreams: r.number(env, "POOL_MAX_STREAMS_PER_CONNECTION"),
		Tuning: h2.Tuning{
			MaxStreamWindow: r.number(env, "HTTP2_STREAM_WINDOW_SIZE"), Window: r.number(env, "HTTP2_CONNECTION_WINDOW_SIZE"),
		},
		DrainDeadline: drain.Deadline(r.duration(env, "CONNECTION_TERMINATION_DEADLINE"),
			time.Duration(r.number(env, "TERMINATION_GRACE_PERIOD_SECONDS"))*time.Second),
	}
	env.mode(&r, &c)
	return c, errors.Join(r.errs...)
}

func (env environment) first(names ...string) string {
	for _, n := range names {
		if v := env(n); v != "" {
			return v
		}
	}
	return ""
}

// mode reads whom this proxy serves.
func (env environment) mode(r *reader, c *ztunnel.Config) {
	switch mode := env("PROXY_MODE"); mode {
	case "", "shared":
	case "dedicated":
		part := strings.Split(env("PROXY_WORKLOAD_INFO"), "/")
		if len(part) != 3 {
			r.fail("PROXY_WORKLOAD_INFO", errors.New("want namespace/name/service-account"))
			return
		}
		c.Only = &zds.Pod{UID: part[1], Namespace: part[0], Name: part[1], ServiceAccount: part[2]}
		if c.Mark == 0 {
			c.Mark = -1 // nothing captures this proxy's own packets
		}
	default:
		r.fail("PROXY_MODE", fmt.Errorf("%q is neither shared nor dedicated", mode))
	}
}

// Defaults of files, relative to the working directory as upstream's are.
const (
	defaultRoot  = "./var/run/secrets/istio/root-cert.pem"
	defaultToken = "./var/run/secrets/tokens/istio-token"
)

// endpoint reads where the control plane, XDS, or the CA is.
func (env environment) endpoint(r *reader, which string) ztunnel.Endpoint {
	e := ztunnel.Endpoint{
		ServerName: env("ALT_" + which + "_HOSTNAME"),
		RootFile:   env(which + "_ROOT_CA"),
		TokenFile:  env("AUTH_TOKEN"),
	}
	address := env(which + "_ADDRESS")
	if address == "" {
		address = "localhost:15012"
		if env("KUBERNETES_SERVICE_HOST") != "" {
			address = "istiod.istio-system.svc:15012"
		}
	}
	e.Address = strings.TrimPrefix(address, "https://")
	if _, _, err := net.SplitHostPort(e.Address); err != nil {
		r.fail(which+"_ADDRESS", err)
	}
	if e.RootFile == "" {
		e.RootFile = defaultRoot
	}
	if e.TokenFile == "" {
		if _, err := os.Stat(defaultToken); err == nil {
			e.TokenFile = defaultToken
		}
	}
	return e
}

// reader collects what is wrong with the variables.
type reader struct{ errs []error }

func (r *reader) fail(name string, err error) {
	r.errs = append(r.errs, fmt.Errorf("%s: %w", name, err))
}

func (r *reader) number(env environment, name string) int {
	text := env(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 0, 32)
	if err == nil && n < 0 {
		err = errors.New("is negative")
	}
	if err != nil {
		r.fail(name, err)
	}
	return int(n)
}

func (r *reader) port(env environment, name string) uint16 {
	n := r.number(env, name)
	if n > 65535 {
		r.fail(name, errors.New("is no port"))
	}
	return uint16(n)
}

func (r *reader) boolean(env environment, name string, unset bool) bool {
	text := env(name)
	if text == "" {
		return unset
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		r.fail(name, err)
	}
	return b
}

func (r *reader) duration(env environment, name string) time.Duration {
	text := env(name)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err == nil && d <= 0 {
		err = errors.New("is not positive")
	}
	if err != nil {
		r.fail(name, err)
	}
	return d
}

func (r *reader) keepAlive(env environment) net.KeepAliveConfig {
	k := linux.KeepAlive
	k.Enable = r.boolean(env, "KEEPALIVE_ENABLED", true)
	if d := r.duration(env, "KEEPALIVE_TIME"); d > 0 {
		k.Idle = d
	}
	if d := r.duration(env, "KEEPALIVE_INTERVAL"); d > 0 {
		k.Interval = d
	}
	if n := r.number(env, "KEEPALIVE_RETRIES"); n > 0 {
		k.Count = n
	}
	return k
}

// metadata collects ISTIO_META_x and ISTIO_METAJSON_x for the control plane.
func (r *reader) metadata(environ []string) map[string]any {
	out := map[string]any{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if key, ok := strings.CutPrefix(name, "ISTIO_META_"); ok {
			out[key] = value
		} else if key, ok := strings.CutPrefix(name, "ISTIO_METAJSON_"); ok {
			var v any
			if err := json.Unmarshal([]byte(value), &v); err != nil {
				r.fail(name, err)
				continue
			}
			out[key] = v
		}
	}
	return out
}

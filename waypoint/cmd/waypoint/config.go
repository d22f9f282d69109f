package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/drain"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/waypoint"
)

// environment looks a variable up, as os.Getenv does.
type environment func(name string) string

// config reads the variables that mean something here.
func (env environment) config() (waypoint.Config, error) {
	var r reader
	c := waypoint.Config{
		Self: waypoint.Self{
			Name: env("POD_NAME"), Namespace: env("POD_NAMESPACE"), ServiceAccount: env("SERVICE_ACCOUNT"),
			IP: env("INSTANCE_IP"), Node: env("NODE_NAME"), Gateway: env("GATEWAY_NAME"), Network: env("NETWORK"),
			ClusterID: env.first("CLUSTER_ID", "ISTIO_META_CLUSTER_ID"), Domain: env("CLUSTER_DOMAIN"),
		},
		ControlPlane:   env.endpoint(&r, "XDS"),
		CA:             env.endpoint(&r, "CA"),
		CertificateTTL: r.duration(env, "SECRET_TTL"),
		AdminPort:      r.port(env, "ADMIN_PORT"),
		MetricsPort:    r.port(env, "STATS_PORT"),
		ReadyPort:      r.port(env, "READINESS_PORT"),
		DrainDeadline: drain.Deadline(r.duration(env, "CONNECTION_TERMINATION_DEADLINE"),
			time.Duration(r.number(env, "TERMINATION_GRACE_PERIOD_SECONDS"))*time.Second),
		Tracing: tracing.Config{
			Endpoint: env("OTEL_EXPORTER_OTLP_ENDPOINT"), HTTP: strings.HasPrefix(env("OTEL_EXPORTER_OTLP_PROTOCOL"), "http"),
			Sample: r.share(env, "OTEL_TRACES_SAMPLER_ARG"),
		},
	}
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

// Defaults of files, relative to the working directory as upstream's are.
const (
	defaultRoot  = "./var/run/secrets/istio/root-cert.pem"
	defaultToken = "./var/run/secrets/tokens/istio-token"
)

// endpoint reads where the control plane, XDS, or the CA is.
func (env environment) endpoint(r *reader, which string) waypoint.Endpoint {
	e := waypoint.Endpoint{
		ServerName: env("ALT_" + which + "_HOSTNAME"),
		RootFile:   env(which + "_ROOT_CA"),
		TokenFile:  env("AUTH_TOKEN"),
	}
	address := env(which + "_ADDRESS")
	if address == "" {
		address = "istiod.istio-system.svc:15012"
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
	n, err := strconv.Atoi(text)
	if err == nil && n < 0 {
		err = errors.New("is negative")
	}
	if err != nil {
		r.fail(name, err)
	}
	return n
}

// share is a number from 0 to 1.
func (r *reader) share(env environment, name string) float64 {
	text := env(name)
	if text == "" {
		return 0
	}
	v, err := strconv.ParseFloat(text, 64)
	if err == nil && !(v >= 0 && v <= 1) {
		err = errors.New("is no share from 0 to 1")
	}
	if err != nil {
		r.fail(name, err)
	}
	return v
}

func (r *reader) port(env environment, name string) uint16 {
	n := r.number(env, name)
	if n > 65535 {
		r.fail(name, errors.New("is no port"))
	}
	return uint16(n)
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

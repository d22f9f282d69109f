package main

import (
	"cmp"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/controlplane"
	"github.com/ambit-mesh/ambit/internal/drain"
	"github.com/ambit-mesh/ambit/internal/settings"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/waypoint"
)

// environment looks a variable up, as os.Getenv does.
type environment func(name string) string

// config reads the variables that mean something here.
func (env environment) config() (waypoint.Config, error) {
	r := &settings.Reader{Lookup: env, Base: 10}
	c := waypoint.Config{
		Self: waypoint.Self{
			Name: env("POD_NAME"), Namespace: env("POD_NAMESPACE"), ServiceAccount: env("SERVICE_ACCOUNT"),
			IP: env("INSTANCE_IP"), Node: env("NODE_NAME"), Gateway: env("GATEWAY_NAME"), Network: env("NETWORK"),
			ClusterID: cmp.Or(env("CLUSTER_ID"), env("ISTIO_META_CLUSTER_ID")), Domain: env("CLUSTER_DOMAIN"),
		},
		ControlPlane:    controlplane.ReadEndpoint(r, "XDS", controlplane.InCluster),
		CA:              controlplane.ReadEndpoint(r, "CA", controlplane.InCluster),
		CertificateTTL:  r.Duration("SECRET_TTL"),
		RevocationsFile: r.Lookup("CRL_PATH"),
		AdminPort:       r.Port("ADMIN_PORT"),
		MetricsPort:     r.Port("STATS_PORT"),
		ReadyPort:       r.Port("READINESS_PORT"),
		DrainDeadline: drain.Deadline(r.Duration("CONNECTION_TERMINATION_DEADLINE"),
			time.Duration(r.Number("TERMINATION_GRACE_PERIOD_SECONDS"))*time.Second),
		Tracing: tracing.Config{
			Endpoint: env("OTEL_EXPORTER_OTLP_ENDPOINT"), HTTP: strings.HasPrefix(env("OTEL_EXPORTER_OTLP_PROTOCOL"), "http"),
			Sample: r.Share("OTEL_TRACES_SAMPLER_ARG"),
		},
	}
	return c, r.Err()
}

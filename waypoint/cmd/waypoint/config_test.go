package main

import (
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/tracing"
)

func TestTheEnvironmentIsRead(t *testing.T) {
	vars := map[string]string{
		"POD_NAME": "wp-1", "POD_NAMESPACE": "shop", "SERVICE_ACCOUNT": "wp", "INSTANCE_IP": "10.1.0.3", "GATEWAY_NAME": "wp",
		"CLUSTER_ID": "east", "XDS_ADDRESS": "https://istiod.istio-system.svc:15012", "CA_ADDRESS": "ca:1", "XDS_ROOT_CA": "/root.pem",
		"TERMINATION_GRACE_PERIOD_SECONDS": "40", "CLUSTER_DOMAIN": "example.org",
	}
	c, err := environment(func(n string) string { return vars[n] }).config()
	if err != nil {
		t.Fatal(err)
	}
	if c.Self.Name != "wp-1" || c.Self.Gateway != "wp" || c.Self.ClusterID != "east" || c.Self.Service().String() != "shop/wp.shop.svc.example.org" {
		t.Errorf("self %+v", c.Self)
	}
	if c.ControlPlane.Address != "istiod.istio-system.svc:15012" || c.ControlPlane.RootFile != "/root.pem" || c.CA.Address != "ca:1" || c.DrainDeadline != 35*time.Second {
		t.Errorf("config %+v", c)
	}
	if c.Tracing != (tracing.Config{}) {
		t.Errorf("tracing %+v without anything that asks for it", c.Tracing)
	}
	vars["OTEL_EXPORTER_OTLP_ENDPOINT"], vars["OTEL_EXPORTER_OTLP_PROTOCOL"], vars["OTEL_TRACES_SAMPLER_ARG"] = "http://collector:4318", "http/protobuf", "0.25"
	if c, err = environment(func(n string) string { return vars[n] }).config(); err != nil || c.Tracing != (tracing.Config{Endpoint: "http://collector:4318", HTTP: true, Sample: 0.25}) {
		t.Errorf("tracing %+v, %v", c.Tracing, err)
	}
	vars["OTEL_TRACES_SAMPLER_ARG"] = "NaN"
	vars["STATS_PORT"], vars["SECRET_TTL"], vars["CA_ADDRESS"] = "x", "-1s", "nowhere"
	_, err = environment(func(n string) string { return vars[n] }).config()
	for _, name := range []string{"STATS_PORT", "SECRET_TTL", "CA_ADDRESS", "OTEL_TRACES_SAMPLER_ARG"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v does not name %s", err, name)
		}
	}
}

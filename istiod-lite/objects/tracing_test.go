package objects

import "testing"

func TestWhereSpansGo(t *testing.T) {
	const providers = `
extensionProviders:
- {name: authz, envoyExtAuthzGrpc: {service: authz.shop.svc.cluster.local, port: 9000}}
- {name: otel, opentelemetry: {service: collector.observability.svc.cluster.local, port: 4317}}
- {name: web, opentelemetry: {service: observability/collector.observability.svc.cluster.local, port: 4318, http: {path: v1/traces}}}
- {name: bad, opentelemetry: {service: collector, port: 70000}}
`
	for _, tt := range []struct {
		sentence, text string
		want           Tracing
	}{
		{"nothing is chosen", "", Tracing{}},
		{"a collector by gRPC, with Istio's share", "defaultProviders: {tracing: [otel]}", Tracing{Endpoint: "http://collector.observability.svc.cluster.local:4317", Sample: 0.01}},
		{"a collector by HTTP, with a share", "defaultProviders: {tracing: [web]}\ndefaultConfig: {tracing: {sampling: 25}}", Tracing{Endpoint: "http://collector.observability.svc.cluster.local:4318/v1/traces", HTTP: true, Sample: 0.25}},
		{"a share of nothing", "defaultProviders: {tracing: [otel]}\ndefaultConfig: {tracing: {sampling: 0}}", Tracing{Endpoint: "http://collector.observability.svc.cluster.local:4317"}},
		{"a share of too much is all", "defaultProviders: {tracing: [otel]}\ndefaultConfig: {tracing: {sampling: 400}}", Tracing{Endpoint: "http://collector.observability.svc.cluster.local:4317", Sample: 1}},
		{"what takes no spans", "defaultProviders: {tracing: [authz]}", Tracing{}},
		{"nobody of that name", "defaultProviders: {tracing: [zipkin]}", Tracing{}},
		{"a port that is none", "defaultProviders: {tracing: [bad]}", Tracing{}},
	} {
		m, err := ParseMesh(providers+tt.text, MeshConfig{})
		if err != nil || m.Tracing != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.sentence, m.Tracing, err, tt.want)
		}
		if len(m.Providers) != 1 {
			t.Errorf("%s: %d authorizers", tt.sentence, len(m.Providers))
		}
	}
}

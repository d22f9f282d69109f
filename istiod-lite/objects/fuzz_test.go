package objects

import "testing"

// FuzzMesh: whatever stands in the mesh settings, they are read or refused.
func FuzzMesh(f *testing.F) {
	f.Add("trustDomain: a\ntrustDomainAliases: [b]\nrootNamespace: c\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n")
	f.Add("extensionProviders:\n- name: a\n  envoyExtAuthzGrpc: {service: a.b, port: 1}\n- name: t\n  opentelemetry: {service: x, port: 4317}\ndefaultProviders: {tracing: [t]}\ndefaultConfig: {tracing: {sampling: 1e400}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMesh(text, MeshConfig{}.WithDefaults())
		if err == nil {
			m.WithDefaults()
		}
	})
}

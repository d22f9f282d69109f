package objects

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

const manyDocuments = `# a comment, and nothing else
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: shop}
- apiVersion: v1
  kind: Node
  metadata: {name: n1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: passed-over}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop}
addressType: IPv4
endpoints: [{addresses: ["10.0.0.1"]}]
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {ports: ["80"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    trustDomain: prod.example
    trustDomainAliases: [old.example]
    accessLogFile: /dev/stdout
`

func TestParse(t *testing.T) {
	s, err := Parse([]byte(manyDocuments))
	if err != nil {
		t.Fatal(err)
	}
	for ref, there := range map[string]bool{
		"Namespace shop": s.Namespaces[Key{Name: "shop"}] != nil, "Node n1": s.Nodes[Key{Name: "n1"}] != nil,
		"Pod default/web": s.Pods[Key{"default", "web"}] != nil, "Service shop/web": s.Services[Key{"shop", "web"}] != nil,
		"EndpointSlice shop/web-1": len(s.EndpointSlices[Key{"shop", "web-1"}].Endpoints) == 1,
	} {
		if !there {
			t.Errorf("%s is not there", ref)
		}
	}
	if ap := s.AuthorizationPolicies[Key{"shop", "p"}]; ap == nil || ap.Spec.GetAction().String() != "DENY" || ap.Spec.GetRules()[0].GetTo()[0].GetOperation().GetPorts()[0] != "80" {
		t.Errorf("the authorization policy came out as %v", ap)
	}
	if pa := s.PeerAuthentications[Key{"shop", "p"}]; pa == nil || pa.Spec.GetMtls().GetMode().String() != "STRICT" {
		t.Errorf("the peer authentication came out as %v", pa)
	}
	want := MeshConfig{TrustDomain: "prod.example", TrustDomainAliases: []string{"old.example"}, RootNamespace: "istio-system", ClusterID: "Kubernetes", ClusterDomain: "cluster.local"}
	if d := cmp.Diff(want, s.Mesh); d != "" {
		t.Errorf("mesh settings (-want +got):\n%s", d)
	}
}

func TestParseErrorsNameTheDocument(t *testing.T) {
	for _, tt := range []struct{ sentence, text, want string }{
		{"no kind", "apiVersion: v1\nmetadata: {name: x}\n", "document 1: no apiVersion or no kind"},
		{"no apiVersion", "kind: Pod\n", "document 1: no apiVersion or no kind"},
		{"no name", "apiVersion: v1\nkind: Pod\n", "document 1: Pod: no name"},
		{"no YAML", "a: b: c\n", "document 1: "},
		{"a field that the kind does not have", "---\napiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: ns}\nspec: {noseName: y}\n", "document 1: Pod ns/x: "},
		{"a value of another type", "apiVersion: v1\nkind: Node\nmetadata: {name: ok}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: 80}\n", "document 2: Service x: "},
		{"an action that is none", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {action: MAYBE}\n", "document 1: AuthorizationPolicy x: "},
		{"the same object twice", "apiVersion: v1\nkind: Node\nmetadata: {name: x}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: x}\n", "document 2: Node x: given twice"},
		{"within a list", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod}]\n", "document 1: item 1: Pod: no name"},
		{"mesh settings that are no YAML", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata: {mesh: \"a: b: c\"}\n", "document 1: ConfigMap istio: parsing mesh settings: "},
	} {
		_, err := Parse([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.sentence, err, tt.want)
		}
	}
	s, err := Parse([]byte("kind: Pod\n---\napiVersion: v1\nkind: Node\nmetadata: {name: x}\n---\nkind: Pod\n"))
	if err == nil || !strings.Contains(err.Error(), "document 1") || !strings.Contains(err.Error(), "document 3") || s.Nodes[Key{Name: "x"}] == nil {
		t.Errorf("two bad documents around a good one: %v, %v", err, s.Nodes)
	}
}

func TestPutAndDelete(t *testing.T) {
	var s Set
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}}
	ref, err := s.Put(pod)
	if err != nil || ref.String() != "Pod n/p" || s.Pods[ref.Key] != pod {
		t.Fatalf("put gave %v, %v", ref, err)
	}
	s.Delete(ref)
	s.Delete(ref)
	s.Delete(Ref{Kind: "Nothing"})
	if len(s.Pods) != 0 {
		t.Error("a deleted pod is still there")
	}
	if _, err := s.Put(&corev1.Secret{}); err == nil {
		t.Error("a Secret was taken")
	}
	if ref, err := s.Put(MeshConfig{TrustDomain: "td"}); err != nil || ref.Kind != KindMesh || s.Mesh.TrustDomain != "td" {
		t.Errorf("putting mesh settings gave %v, %v", ref, err)
	}
}

func TestProvidersAreRead(t *testing.T) {
	const text = `
extensionProviders:
- name: by-grpc
  envoyExtAuthzGrpc:
    service: authz.shop.svc.cluster.local
    port: 9000
    failOpen: true
    includeRequestBodyInCheck: {maxRequestBytes: 100, allowPartialMessage: true, packAsBytes: true}
- name: by-http
  envoyExtAuthzHttp:
    service: shop/authz.example.com
    port: 8000
    timeout: 1.5s
    statusOnError: "503"
    pathPrefix: /check
    includeRequestHeadersInCheck: [x-user, "x-a-*", "*-id"]
    includeAdditionalHeadersInCheck: {x-b: "2", x-a: "1"}
    headersToUpstreamOnAllow: [authorization]
    headersToDownstreamOnAllow: [set-cookie]
    headersToDownstreamOnDeny: [content-type]
- name: traces
  opentelemetry: {service: otel, port: 4317}
`
	got, err := ParseMesh(text, MeshConfig{})
	if err != nil {
		t.Fatal(err)
	}
	exact := func(s string) mesh.StringMatch { return mesh.StringMatch{Value: s} }
	want := []Provider{
		{At: "authz.shop.svc.cluster.local", Provider: mesh.Provider{
			Name: "by-grpc", GRPC: true, Port: 9000, FailOpen: true, MaxBody: 100, AllowPartial: true, PackAsBytes: true,
		}},
		{At: "shop/authz.example.com", Provider: mesh.Provider{
			Name: "by-http", Port: 8000, Timeout: 1500 * time.Millisecond, StatusOnError: 503, PathPrefix: "/check",
			IncludeRequestHeaders:      []mesh.StringMatch{exact("x-user"), {Op: mesh.OpPrefix, Value: "x-a-"}, {Op: mesh.OpSuffix, Value: "-id"}},
			AddHeaders:                 []mesh.Header{{Name: "x-a", Value: "1"}, {Name: "x-b", Value: "2"}},
			HeadersToUpstream:          []mesh.StringMatch{exact("authorization")},
			HeadersToDownstreamOnAllow: []mesh.StringMatch{exact("set-cookie")},
			HeadersToDownstreamOnDeny:  []mesh.StringMatch{exact("content-type")},
		}},
	}
	if d := cmp.Diff(want, got.Providers); d != "" {
		t.Errorf("providers (-want +got):\n%s", d)
	}
	for field, problem := range map[string]string{
		"{port: 80}":                            "service is not named",
		"{service: x}":                          "port 0 is not a port",
		"{service: x, port: 80, timeout: soon}": `timeout "soon" is not a duration`,
		"{service: x, port: 80, statusOnError: \"200\"}": `statusOnError "200" is not the status of an error`,
		"{service: x, port: 80, pathPrefix: check}":      `pathPrefix "check" does not begin with a slash`,
	} {
		m, err := ParseMesh("extensionProviders: [{name: p, envoyExtAuthzHttp: "+field+"}]", MeshConfig{})
		if err != nil || len(m.Providers) != 1 || m.Providers[0].Problem != problem {
			t.Errorf("%s: %v, %+v; want problem %q", field, err, m.Providers, problem)
		}
	}
}

func TestWhatTheMeshMayDial(t *testing.T) {
	for mode, want := range map[string]bool{"REGISTRY_ONLY": true, "ALLOW_ANY": false} {
		m, err := ParseMesh("outboundTrafficPolicy: {mode: "+mode+"}", MeshConfig{RegistryOnly: !want})
		if err != nil || m.RegistryOnly != want {
			t.Errorf("%s: %v, %v", mode, m.RegistryOnly, err)
		}
	}
	if m, err := ParseMesh("trustDomain: td", MeshConfig{RegistryOnly: true}); err != nil || !m.RegistryOnly {
		t.Errorf("nothing said: %v, %v; want what was", m.RegistryOnly, err)
	}
	// A mode that nobody knows could be one that closes.
	if m, err := ParseMesh("tunnelTransport: h3", MeshConfig{}); err != nil || m.Transport != mesh.TransportH3 {
		t.Errorf("h3 for the mesh: %v, %v", m.Transport, err)
	}
	if m, err := ParseMesh("tunnelTransport: h4", MeshConfig{Transport: mesh.TransportH2}); err == nil || m.Transport != mesh.TransportH2 {
		t.Errorf("a transport that there is not: %v, %v; want an error, and what was", m.Transport, err)
	}
	if _, err := ParseMesh("outboundTrafficPolicy: {mode: REGISTRY}", MeshConfig{}); err == nil {
		t.Error("a mode that nobody knows was taken")
	}
}

package translate_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// guarded is a namespace with a waypoint, services in front of which it stands
// and others in front of which it does not.
const guarded = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: young, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress, namespace: shop}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: shop, labels: {gateway.istio.io/managed: istio.io-mesh-controller}}
spec: {clusterIP: 10.96.0.9, selector: {gateway.networking.k8s.io/gateway-name: wp}, ports: [{port: 15008}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wp-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: wp, gateway.istio.io/managed: istio.io-mesh-controller}}
status: {phase: Running, podIPs: [{ip: 10.1.0.1}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: waiting, namespace: shop, labels: {istio.io/use-waypoint: young}}
spec: {clusterIP: 10.96.0.3, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: shop}
spec: {clusterIP: None, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop, labels: {istio.io/use-waypoint: wp}}
spec: {hosts: [api.example.com], ports: [{number: 443, name: https, protocol: HTTPS}], resolution: DNS}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: authz
      envoyExtAuthzGrpc: {service: authz.infra.svc.cluster.local, port: 9000}
    - name: outside
      envoyExtAuthzHttp: {service: authz.example.com, port: 80, timeout: 2s}
    - name: broken
      envoyExtAuthzHttp: {service: authz.example.com, port: 0}
---
`

func told(t *testing.T, all []translate.Condition, kind objects.Kind, name string) string {
	t.Helper()
	var out []string
	for _, c := range all {
		if c.Object.Kind == kind && c.Object.Key.Name == name {
			out = append(out, fmt.Sprintf("%s=%v/%s: %s", c.Type, c.Status, c.Reason, c.Message))
		}
	}
	return strings.Join(out, "\n")
}

func TestTargetsOfPolicies(t *testing.T) {
	service := func(name string) mesh.Target {
		return mesh.Target{Service: mesh.ServiceKey{Namespace: "shop", Hostname: name + ".shop.svc.cluster.local"}}
	}
	gateway := mesh.Target{Gateway: service("wp").Service}
	wp := "shop/wp.shop.svc.cluster.local"
	const group = "group: gateway.networking.k8s.io, "
	for _, tt := range []struct {
		sentence, namespace, refs string
		want                      []mesh.Target
		told                      string
	}{
		{"a Service behind a waypoint", "shop", "[{kind: Service, name: web}]", []mesh.Target{service("web")}, "true/Accepted: Waypoint " + wp + " enforces this for Service web."},
		{"the older field", "shop", "", []mesh.Target{service("web")}, "true/Accepted: Waypoint " + wp + " enforces this for Service web."},
		{"a Service without a waypoint", "shop", "[{kind: Service, name: plain}]", []mesh.Target{service("plain")}, "false/AncestorNotBound: Service plain names no waypoint, nor does its namespace: nothing enforces this there."},
		{"a Service whose waypoint is not ready", "shop", "[{kind: Service, name: waiting}]", []mesh.Target{service("waiting")}, "false/AncestorNotBound: Waypoint shop/young.shop.svc.cluster.local of Service waiting is not ready: connections fail until it is."},
		{"no such Service", "shop", "[{kind: Service, name: gone}]", nil, "false/TargetNotFound: Service gone is not there."},
		{"a Service of another namespace", "shop", "[{kind: Service, name: web, namespace: bank}]", nil, "false/Invalid: Service web is in another namespace, where this policy has no say."},
		{"a policy elsewhere", "bank", "[{kind: Service, name: web}]", nil, "false/TargetNotFound: Service web is not there."},
		{"a headless Service", "shop", "[{kind: Service, name: headless}]", nil, "false/Invalid: Service headless is headless: traffic to it goes straight to its pods."},
		{"an alias", "shop", "[{kind: Service, name: alias}]", nil, "false/Invalid: Service alias is of type ExternalName: traffic to it never comes to a waypoint."},
		{"a waypoint", "shop", "[{" + group + "kind: Gateway, name: wp}]", []mesh.Target{gateway}, "true/Accepted: Waypoint " + wp + " enforces this for everything that it serves."},
		{"a waypoint that is not ready yet", "shop", "[{" + group + "kind: Gateway, name: young}]", []mesh.Target{{Gateway: service("young").Service}}, "false/AncestorNotBound: Waypoint shop/young.shop.svc.cluster.local is not ready."},
		{"no such Gateway", "shop", "[{" + group + "kind: Gateway, name: gone}]", nil, "false/TargetNotFound: Gateway gone is not there."},
		{"a Gateway that is no waypoint", "shop", "[{" + group + "kind: Gateway, name: ingress}]", nil, "false/Invalid: Gateway ingress is of class istio: it is no waypoint."},
		{"all waypoints", "istio-system", "[{" + group + "kind: GatewayClass, name: istio-waypoint}]", []mesh.Target{{Class: true}}, "true/Accepted: Every waypoint enforces this."},
		{"all waypoints, from elsewhere", "shop", "[{" + group + "kind: GatewayClass, name: istio-waypoint}]", nil, "false/Invalid: GatewayClass istio-waypoint is a target for policies in namespace istio-system only."},
		{"another class", "istio-system", "[{" + group + "kind: GatewayClass, name: istio}]", nil, "false/Invalid: GatewayClass istio is not the class of waypoints, which is istio-waypoint."},
		{"a ServiceEntry", "shop", "[{group: networking.istio.io, kind: ServiceEntry, name: api}]", []mesh.Target{{Service: mesh.ServiceKey{Namespace: "shop", Hostname: "api.example.com"}}}, "true/Accepted: Waypoint " + wp + " enforces this for ServiceEntry api's api.example.com."},
		{"no such ServiceEntry", "shop", "[{group: networking.istio.io, kind: ServiceEntry, name: gone}]", nil, "false/TargetNotFound: ServiceEntry gone is not there."},
		{"something else", "shop", "[{group: apps, kind: Deployment, name: web}]", nil, `false/Invalid: A target of kind Deployment in group "apps" has no effect here.`},
		{"one target that is there and one that is not", "shop", "[{kind: Service, name: web}, {kind: Service, name: gone}]", []mesh.Target{service("web")}, "false/PartiallyInvalid: Waypoint " + wp + " enforces this for Service web. Service gone is not there."},
		{"nothing that is there", "shop", "[{kind: Service, name: gone}, {kind: Service, name: headless}]", nil, "false/Invalid: Service gone is not there. Service headless is headless: traffic to it goes straight to its pods."},
	} {
		refs := "targetRefs: " + tt.refs
		if tt.refs == "" {
			refs = "targetRef: {kind: Service, name: web}"
		}
		set := parse(t, guarded+fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: %[1]s}
spec: {%[2]s, rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: r, namespace: %[1]s}
spec: {%[2]s, jwtRules: [{issuer: me, jwks: '{"keys":[{}]}'}]}
`, tt.namespace, refs))
		m, conditions := translate.Translate(set)
		key := mesh.PolicyKey{Namespace: tt.namespace, Name: "p"}
		var got []mesh.Target
		if p := m.Policies[key]; p != nil {
			got = p.Targets
			if p.Scope != mesh.ScopeTargets || p.Rules[0].Clauses[0].Matches[0].HTTP.Methods[0].Value != "GET" {
				t.Errorf("%s: the policy came out as %+v", tt.sentence, p)
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: targets (-want +got):\n%s", tt.sentence, d)
		}
		if got, want := told(t, conditions, objects.KindAuthorizationPolicy, "p"), "WaypointAccepted="+tt.told; got != want {
			t.Errorf("%s:\ntold %s\nwant %s", tt.sentence, got, want)
		}
		var tokens []mesh.Target
		if a := m.Authentications[mesh.PolicyKey{Namespace: tt.namespace, Name: "r"}]; a != nil {
			tokens = a.Targets
		}
		if d := cmp.Diff(tt.want, tokens); d != "" {
			t.Errorf("%s: targets of the authentication (-want +got):\n%s", tt.sentence, d)
		}
		if got, want := told(t, conditions, objects.KindRequestAuthentication, "r"), "WaypointAccepted="+tt.told; got != want {
			t.Errorf("%s: the authentication\nis told %s\nwant    %s", tt.sentence, got, want)
		}
	}
}

func TestPathsOfPoliciesHaveTheFormThatPathsHave(t *testing.T) {
	for _, tt := range []struct{ sentence, path, want string }{
		{"a plain path", "/admin", "/admin"},
		{"a prefix", "/admin/*", "/admin/*"},
		{"a suffix", "*/admin", "*/admin"},
		{"everything", "*", "*"},
		{"escapes", "/%61%2fb", "/a%2Fb"},
		{"escapes of a prefix", "/a%2f*", "/a%2F*"},
		{"slashes in a row", "//a///b/", "/a/b/"},
		{"beyond ASCII", "/ä*", "/%C3%A4*"},
		{"the beginning of a hidden name", "/a/.*", "/a/.*"},
		{"a template", "/%7euser//{*}/x/{**}", "/~user/{*}/x/{**}"},
		{"a template's last slash", "/a/{*}/", "/a/{*}/"},
		{"half an escape", "/a%2*", ""},
		{"dots at the end", "/a/..", ""},
		{"dots at the end of a suffix", "*/.", ""},
		{"dots in a template", "/a/../{*}", ""},
	} {
		spec := fmt.Sprintf(`{targetRefs: [{kind: Service, name: web}], rules: [{to: [{operation: {paths: [%q]}}]}]}`, tt.path)
		m, _ := translate.Translate(parse(t, guarded+"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: "+spec+"\n"))
		got := ""
		if p := m.Policies[mesh.PolicyKey{Namespace: "shop", Name: "p"}]; p != nil && len(p.Rules) > 0 {
			got = p.Rules[0].Clauses[0].Matches[0].HTTP.Paths[0].String()
		}
		if got != tt.want {
			t.Errorf("%s: %q becomes %q, want %q", tt.sentence, tt.path, got, tt.want)
		}
	}
}

func TestWhatAWaypointCannotEvaluateCloses(t *testing.T) {
	const enforced = "Waypoint shop/wp.shop.svc.cluster.local enforces this for Service web."
	for _, tt := range []struct{ sentence, spec, told, provider string }{
		{"an ALLOW with an unknown key", `{rules: [{when: [{key: experimental.x, values: [v]}]}]}`,
			`false/PartiallyInvalid: ` + enforced + ` Rule 0: condition "experimental.x" is not known here. This ALLOW rule is left out, so what only it allows is denied.`, ""},
		{"a DENY with a template that is none", `{action: DENY, rules: [{to: [{operation: {paths: ["/{**}/{*}"], ports: ["80"]}}]}]}`,
			`false/PartiallyInvalid: ` + enforced + ` Rule 0: paths "/{**}/{*}" has an operator after {**}. This DENY rule is enforced without that, so it denies everything that the rest of it describes.`, ""},
		{"a DENY with a path that no path is", `{action: DENY, rules: [{to: [{operation: {paths: ["/a/../b"], ports: ["80"]}}]}]}`,
			`false/PartiallyInvalid: ` + enforced + ` Rule 0: paths "/a/../b" can never match: path has a segment . or .., which is resolved before paths are compared. This DENY rule is enforced without that, so it denies everything that the rest of it describes.`, ""},
		{"an AUDIT", `{action: AUDIT, rules: [{when: [{key: "request.headers[a b]", values: [v]}]}]}`,
			`false/PartiallyInvalid: ` + enforced + ` Rule 0: condition "request.headers[a b]" does not name a header in brackets. This AUDIT rule does without that, so it notes everything that the rest of it describes.`, ""},
		{"a CUSTOM that asks about tokens", `{action: CUSTOM, provider: {name: authz}, rules: [{from: [{source: {requestPrincipals: ["*"]}}]}]}`,
			`false/PartiallyInvalid: ` + enforced + ` Rule 0: requestPrincipals cannot be told before the provider is asked, since tokens are verified after that. This CUSTOM rule does without that, so its provider is asked about everything that the rest of it describes.`, "infra/authz.infra.svc.cluster.local:9000"},
		{"a CUSTOM with a provider of the mesh", `{action: CUSTOM, provider: {name: authz}, rules: [{to: [{operation: {paths: [/a]}}]}]}`,
			`true/Accepted: ` + enforced, "infra/authz.infra.svc.cluster.local:9000"},
		{"a CUSTOM with a provider outside", `{action: CUSTOM, provider: {name: outside}, rules: [{}]}`, `true/Accepted: ` + enforced, "authz.example.com:80"},
		{"a CUSTOM without its provider", `{action: CUSTOM, provider: {name: gone}, rules: [{}]}`,
			`false/Invalid: ` + enforced + ` Provider "gone" is not among the extensionProviders of the mesh's settings: what this policy matches is denied.`, ""},
		{"a CUSTOM with a provider that cannot be used", `{action: CUSTOM, provider: {name: broken}, rules: [{}]}`,
			`false/Invalid: ` + enforced + ` Provider "broken" cannot be used, since its port 0 is not a port: what this policy matches is denied.`, ""},
		{"a selector beside targets", `{selector: {matchLabels: {app: web}}, rules: [{}]}`, `false/PartiallyInvalid: ` + enforced + ` The selector has no effect beside targetRefs.`, ""},
	} {
		spec := strings.Replace(tt.spec, "{", "{targetRefs: [{kind: Service, name: web}], ", 1)
		m, conditions := translate.Translate(parse(t, guarded+"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: "+spec+"\n"))
		if got, want := told(t, conditions, objects.KindAuthorizationPolicy, "p"), "WaypointAccepted="+tt.told; got != want {
			t.Errorf("%s:\ntold %s\nwant %s", tt.sentence, got, want)
		}
		provider := ""
		if p := m.Policies[mesh.PolicyKey{Namespace: "shop", Name: "p"}].Provider; p != nil {
			provider = fmt.Sprintf("%s:%d", p.Host, p.Port)
			if p.Host == "" {
				provider = fmt.Sprintf("%s:%d", p.Service, p.Port)
			}
		}
		if provider != tt.provider {
			t.Errorf("%s: the provider is at %q, want %q", tt.sentence, provider, tt.provider)
		}
	}
}

func TestRequestAuthentication(t *testing.T) {
	rule := func(text string) string {
		return guarded + "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: shop}\nspec: {targetRefs: [{kind: Service, name: web}], jwtRules: [" + text + "]}\n"
	}
	const enforced = "Waypoint shop/wp.shop.svc.cluster.local enforces this for Service web."
	const keys = `{"keys":[{}]}`
	fetched := &objects.KeySet{ObjectMeta: metav1.ObjectMeta{Name: "https://me/keys"}, Keys: keys}
	stale := &objects.KeySet{ObjectMeta: fetched.ObjectMeta, Keys: keys, Problem: "could not be fetched again"}
	failed := &objects.KeySet{ObjectMeta: fetched.ObjectMeta, Problem: "could not be fetched"}
	discovered := &objects.KeySet{ObjectMeta: metav1.ObjectMeta{Name: "https://me/.well-known/openid-configuration"}, Keys: keys}
	for _, tt := range []struct {
		sentence, rule string
		fetched        *objects.KeySet
		want           mesh.TokenRule
		told           string
	}{
		{"everything", `{issuer: me, jwks: '{"keys":[{}]}', audiences: [a], fromHeaders: [{name: X, prefix: "P "}], fromParams: [q], fromCookies: [c], forwardOriginalToken: true, outputPayloadToHeader: W, outputClaimToHeaders: [{header: Z, claim: a.b}], spaceDelimitedClaims: [roles]}`, nil,
			mesh.TokenRule{
				Issuer: "me", Keys: keys, Audiences: []string{"a"}, FromHeaders: []mesh.TokenHeader{{Name: "X", Prefix: "P "}}, FromParams: []string{"q"}, FromCookies: []string{"c"},
				Forward: true, PayloadHeader: "W", ClaimHeaders: []mesh.ClaimHeader{{Header: "Z", Claim: "a.b"}}, SpaceDelimited: []string{"roles"},
			}, "true/Accepted: " + enforced},
		{"keys that were fetched", `{issuer: me, jwksUri: "https://me/keys"}`, fetched, mesh.TokenRule{Issuer: "me", KeysFrom: "https://me/keys", Keys: keys}, "true/Accepted: " + enforced},
		{"keys that are found by discovery", `{issuer: "https://me/"}`, discovered, mesh.TokenRule{KeysFrom: "https://me/.well-known/openid-configuration", Issuer: "https://me/", Keys: keys}, "true/Accepted: " + enforced},
		{"keys that were fetched before an outage", `{issuer: me, jwksUri: "https://me/keys"}`, stale, mesh.TokenRule{KeysFrom: "https://me/keys", Issuer: "me", Keys: keys},
			"false/PartiallyInvalid: " + enforced + " Rule 0: The keys of issuer me could not be fetched again: the last that were fetched are used."},
		{"keys that have never been had", `{issuer: me, jwksUri: "https://me/keys"}`, failed, mesh.TokenRule{KeysFrom: "https://me/keys", Issuer: "me", Unready: "could not be fetched"},
			"false/PartiallyInvalid: " + enforced + " Rule 0: The keys of issuer me could not be fetched: its tokens are refused."},
		{"keys that nobody has asked for yet", `{issuer: me, jwksUri: "https://me/keys"}`, nil, mesh.TokenRule{KeysFrom: "https://me/keys", Issuer: "me", Unready: "have not been fetched yet"},
			"false/PartiallyInvalid: " + enforced + " Rule 0: The keys of issuer me have not been fetched yet: its tokens are refused."},
		{"a text that has no keys", `{issuer: me, jwks: "nonsense"}`, nil, mesh.TokenRule{Issuer: "me", Unready: "are not a JWKS"},
			"false/PartiallyInvalid: " + enforced + " Rule 0: The keys of issuer me are not a JWKS: its tokens are refused."},
	} {
		set := parse(t, rule(tt.rule))
		if tt.fetched != nil {
			if _, err := set.Put(tt.fetched); err != nil {
				t.Fatal(err)
			}
		}
		m, conditions := translate.Translate(set)
		a := m.Authentications[mesh.PolicyKey{Namespace: "shop", Name: "r"}]
		if d := cmp.Diff([]mesh.TokenRule{tt.want}, a.Tokens); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
		if got, want := told(t, conditions, objects.KindRequestAuthentication, "r"), "WaypointAccepted="+tt.told; got != want {
			t.Errorf("%s:\ntold %s\nwant %s", tt.sentence, got, want)
		}
	}

	m, conditions := translate.Translate(parse(t, strings.Replace(rule("{issuer: me, jwks: '"+keys+"'}"), "targetRefs: [{kind: Service, name: web}]", "selector: {matchLabels: {app: web}}", 1)))
	want := "WaypointAccepted=false/Invalid: This has no effect: only waypoints see tokens, and targetRefs says at which. Name Services or a waypoint's Gateway there."
	if got := told(t, conditions, objects.KindRequestAuthentication, "r"); got != want || len(m.Authentications) > 0 {
		t.Errorf("by selector:\ntold %s\nwant %s, and no authentication: %v", got, want, m.Authentications)
	}
}

func TestProvidersKeepTheirSettings(t *testing.T) {
	m, _ := translate.Translate(parse(t, guarded+"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: Service, name: web}], action: CUSTOM, provider: {name: outside}, rules: [{}]}\n"))
	want := &mesh.Provider{Name: "outside", Host: "authz.example.com", Port: 80, Timeout: 2 * time.Second}
	if d := cmp.Diff(want, m.Policies[mesh.PolicyKey{Namespace: "shop", Name: "p"}].Provider); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

package translate_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// entryYAML is an entry of namespace shop; spec is in flow style.
func entryYAML(name, created, spec string) string {
	return fmt.Sprintf("---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: %s, namespace: shop, creationTimestamp: %q}\nspec: {%s}\n", name, created, spec)
}

const (
	older = "2026-01-01T00:00:00Z"
	newer = "2026-01-02T00:00:00Z"
)

// endpointsOf says the endpoints of a service in shop as "address:target".
func endpointsOf(m mesh.Model, host string) []string {
	var out []string
	for _, w := range m.Workloads {
		for _, p := range w.Services[mesh.ServiceKey{Namespace: "shop", Hostname: host}] {
			at := w.Hostname
			if len(w.Addresses) > 0 {
				at = w.Addresses[0].String()
			}
			out = append(out, fmt.Sprintf("%s:%d", at, p.Target))
		}
	}
	slices.Sort(out)
	return out
}

func TestServiceEntries(t *testing.T) {
	const http = "ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]"
	pod := podYAML("labels: {app: web}", "", up)
	for _, tt := range []struct {
		sentence, yaml string
		endpoints      []string // of api.example.com
		told           string   // is in the condition; empty is a condition that is true
	}{
		{"listed addresses", entryYAML("a", older, "hosts: [API.example.com], addresses: [240.0.0.1], "+http+", resolution: STATIC, endpoints: [{address: 192.0.2.1}, {address: 192.0.2.2, ports: {http: 9090}}]"),
			[]string{"192.0.2.1:8080", "192.0.2.2:9090"}, ""},
		{"names for DNS to find", entryYAML("a", older, "hosts: [api.example.com], addresses: [240.0.0.1], "+http+", resolution: DNS, endpoints: [{address: Eu.example.com}]"),
			[]string{"eu.example.com:8080"}, ""},
		{"the host itself for DNS to find", entryYAML("a", older, "hosts: [api.example.com], addresses: [240.0.0.1], "+http+", resolution: DNS"),
			[]string{"api.example.com:8080"}, ""},
		{"pods", pod + entryYAML("a", older, "hosts: [api.example.com], addresses: [240.0.0.1], "+http+", resolution: STATIC, workloadSelector: {labels: {app: web}}"),
			[]string{"10.0.0.1:8080"}, ""},
		{"of two with one host, the older has it", entryYAML("a", newer, "hosts: [api.example.com], addresses: [240.0.0.1], "+http+", resolution: DNS") +
			entryYAML("b", older, "hosts: [api.example.com], addresses: [240.0.0.2], ports: [{number: 81, name: x, protocol: TCP}], resolution: DNS"),
			[]string{"api.example.com:80", "api.example.com:81"}, ""},
		{"a name where addresses are wanted", entryYAML("a", older, "hosts: [api.example.com], addresses: [240.0.0.1], "+http+", resolution: STATIC, endpoints: [{address: eu.example.com}]"),
			nil, `"eu.example.com" is not an address`},
		{"a wildcard beside it, which cannot be looked up", entryYAML("a", older, "hosts: ['*.example.com', api.example.com], addresses: [240.0.0.1], "+http+", resolution: DNS"),
			[]string{"api.example.com:8080"}, `"*.example.com" has no endpoints, and a wildcard cannot be looked up: connections to it fail`},
		{"a wildcard in the middle beside it", entryYAML("a", older, "hosts: ['a.*.com', api.example.com], addresses: [240.0.0.1], "+http+", resolution: DNS"),
			[]string{"api.example.com:8080"}, `"a.*.com" is left out`},
		{"everything beside it", entryYAML("a", older, "hosts: ['*', api.example.com], addresses: [240.0.0.1], "+http+", resolution: DNS"),
			[]string{"api.example.com:8080"}, `"*" is left out`},
		{"without addresses only proxies know it", entryYAML("a", older, "hosts: [api.example.com], "+http+", resolution: DNS"),
			[]string{"api.example.com:8080"}, "no addresses"},
		{"an address that is none", entryYAML("a", older, "hosts: [api.example.com], addresses: [240.0.0.1, x], "+http+", resolution: DNS"),
			[]string{"api.example.com:8080"}, `"x" is not an address`},
		{"another network", entryYAML("a", older, "hosts: [api.example.com], addresses: [240.0.0.1], "+http+", resolution: STATIC, endpoints: [{address: 192.0.2.1, network: far}]"),
			nil, "network"},
		{"a resolution that is not supported", entryYAML("a", older, "hosts: [api.example.com], addresses: [240.0.0.1], "+http+", resolution: DYNAMIC_DNS"), nil, "DYNAMIC_DNS"},
	} {
		m, conditions := translate.Translate(parse(t, tt.yaml))
		got := endpointsOf(m, "api.example.com")
		if tt.sentence == "of two with one host, the older has it" {
			s := m.Services[mesh.ServiceKey{Namespace: "shop", Hostname: "api.example.com"}]
			if s == nil || s.Ports[0].Service != 81 {
				t.Errorf("%s: the service is %+v", tt.sentence, s)
			}
			continue
		}
		if d := cmp.Diff(tt.endpoints, got); d != "" {
			t.Errorf("%s: endpoints (-want +got):\n%s", tt.sentence, d)
		}
		i := slices.IndexFunc(conditions, func(c translate.Condition) bool { return c.Object.Kind == objects.KindServiceEntry })
		if c := conditions[i]; c.Status != (tt.told == "") || !strings.Contains(c.Message, tt.told) {
			t.Errorf("%s: the condition is %v %q, want %q in it", tt.sentence, c.Status, c.Message, tt.told)
		}
	}
}

func TestAServiceEntryIsBehindTheWaypointThatItNames(t *testing.T) {
	text := strings.Replace(entryYAML("a", older, "hosts: [api.example.com], addresses: [240.0.0.1, 10.9.0.0/16], ports: [{number: 443, name: tls, protocol: TLS}], resolution: NONE"),
		"name: a,", "name: a, labels: {istio.io/use-waypoint: egress},", 1)
	m, _ := translate.Translate(parse(t, text))
	s := m.Services[mesh.ServiceKey{Namespace: "shop", Hostname: "api.example.com"}]
	want := &mesh.Service{
		Name: "a", Namespace: "shop", Hostname: "api.example.com",
		Addresses:     []mesh.NetworkPrefix{{Prefix: netip.MustParsePrefix("240.0.0.1/32")}, {Prefix: netip.MustParsePrefix("10.9.0.0/16")}},
		Ports:         []mesh.Port{{Service: 443, Target: 443, App: mesh.AppTLS}},
		Waypoint:      mesh.GatewayAddress{Service: mesh.ServiceKey{Namespace: "shop", Hostname: "egress.shop.svc.cluster.local"}, Port: 15008},
		LoadBalancing: mesh.LoadBalancing{Mode: mesh.BalancePassthrough},
	}
	if d := cmp.Diff(want, s, compareAddr, comparePrefix); d != "" {
		t.Errorf("the service (-want +got):\n%s", d)
	}
}

func TestAServiceWinsOverAnEntryOfItsName(t *testing.T) {
	service := "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {clusterIP: 10.96.0.9, ports: [{port: 90}]}\n"
	entry := entryYAML("a", older, "hosts: [web.shop.svc.cluster.local], addresses: [240.0.0.1], ports: [{number: 80, name: http}], resolution: DNS")
	key := mesh.ServiceKey{Namespace: "shop", Hostname: "web.shop.svc.cluster.local"}
	tr := translate.New()
	port := func(text string, changed ...objects.Ref) uint16 {
		m, _ := tr.Update(parse(t, text), changed)
		return m.Services[key].Ports[0].Service
	}
	ref := objects.Ref{Kind: objects.KindService, Key: objects.Key{Namespace: "shop", Name: "web"}}
	if got := port(entry); got != 80 {
		t.Errorf("alone the entry has port %d", got)
	}
	if got := port(entry+service, ref); got != 90 {
		t.Errorf("beside a service the host has port %d", got)
	}
	if got := port(entry, ref); got != 80 {
		t.Errorf("after the service the host has port %d", got)
	}
}

func TestWildcardHosts(t *testing.T) {
	const spec = "hosts: ['*.example.com'], ports: [{number: 80, name: http}], "
	for _, tt := range []struct {
		sentence, spec string
		endpoints      []string
		mode           mesh.BalancingMode
		told           string // is in the condition; empty is a condition that is true
	}{
		{"what is dialled is where it goes", spec + "addresses: [192.0.2.0/24], resolution: NONE", nil, mesh.BalancePassthrough, ""},
		{"without addresses nothing leads there", spec + "resolution: NONE", nil, mesh.BalancePassthrough, "no addresses"},
		{"all names lead to the endpoints", spec + "addresses: [240.0.0.1], resolution: STATIC, endpoints: [{address: 192.0.2.1}]", []string{"192.0.2.1:80"}, mesh.BalanceAny, ""},
		{"all names lead to where another name leads", spec + "addresses: [240.0.0.1], resolution: DNS, endpoints: [{address: eu.example.com}]", []string{"eu.example.com:80"}, mesh.BalanceAny, ""},
		{"no name says which is meant", spec + "addresses: [240.0.0.1], resolution: DNS", nil, mesh.BalanceAny, "a wildcard cannot be looked up: connections to it fail"},
		{"looking up what was dialled is not done", spec + "resolution: DYNAMIC_DNS", nil, mesh.BalanceAny, "Resolution DYNAMIC_DNS is not supported: the hosts have no endpoints, and connections to them fail"},
	} {
		m, conditions := translate.Translate(parse(t, entryYAML("a", older, tt.spec)))
		s := m.Services[mesh.ServiceKey{Namespace: "shop", Hostname: "*.example.com"}]
		if s == nil || s.LoadBalancing.Mode != tt.mode {
			t.Errorf("%s: the service is %+v", tt.sentence, s)
		}
		if d := cmp.Diff(tt.endpoints, endpointsOf(m, "*.example.com")); d != "" {
			t.Errorf("%s: endpoints (-want +got):\n%s", tt.sentence, d)
		}
		if c := conditions[0]; c.Status != (tt.told == "") || !strings.Contains(c.Message, tt.told) {
			t.Errorf("%s: the condition is %v %q, want %q in it", tt.sentence, c.Status, c.Message, tt.told)
		}
	}
}

func TestAddressesThatTheStatusGives(t *testing.T) {
	const status = "status: {addresses: [{value: 240.240.0.7, host: api.example.com}, {value: '2001:2::7', host: API.example.com}, {value: 240.240.0.8, host: other.example.com}, {value: x, host: api.example.com}]}\n"
	for _, tt := range []struct {
		sentence, spec string
		want           []string
	}{
		{"where the entry has none", "hosts: [api.example.com], ports: [{number: 80, name: http}], resolution: DNS", []string{"240.240.0.7/32", "2001:2::7/128"}},
		{"not where it has its own", "hosts: [api.example.com], addresses: [240.0.0.1], ports: [{number: 80, name: http}], resolution: DNS", []string{"240.0.0.1/32"}},
		{"not where what is dialled is where it goes", "hosts: [api.example.com], ports: [{number: 80, name: http}], resolution: NONE", nil},
	} {
		m, _ := translate.Translate(parse(t, entryYAML("a", older, tt.spec)+status))
		var got []string
		for _, a := range m.Services[mesh.ServiceKey{Namespace: "shop", Hostname: "api.example.com"}].Addresses {
			got = append(got, a.Prefix.String())
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
	}
}

// virtualOf says the virtual addresses that entries of shop are to have.
func virtualOf(tr *translate.Translator, name string) []string {
	d := tr.Details()[objects.Ref{Kind: objects.KindServiceEntry, Key: objects.Key{Namespace: "shop", Name: name}}]
	var out []string
	if d != nil {
		for _, a := range d.Virtual {
			out = append(out, a.Host+"="+a.Value)
		}
	}
	return out
}

func TestVirtualAddresses(t *testing.T) {
	const ports = "ports: [{number: 80, name: http}]"
	given := "status: {addresses: [{value: 240.240.0.7, host: api.example.com}, {value: '2001:2::7', host: api.example.com}]}\n"
	plain := entryYAML("a", older, "hosts: [api.example.com], "+ports+", resolution: DNS")
	for _, tt := range []struct {
		sentence, yaml string
		want           int // addresses
	}{
		{"of both families", plain, 2},
		{"of each host", entryYAML("a", older, "hosts: [api.example.com, b.example.com], "+ports+", resolution: STATIC"), 4},
		{"none beside its own", entryYAML("a", older, "hosts: [api.example.com], addresses: [240.0.0.1], "+ports+", resolution: DNS"), 0},
		{"none where what is dialled is where it goes", entryYAML("a", older, "hosts: [api.example.com], "+ports+", resolution: NONE"), 0},
		{"of a wildcard", entryYAML("a", older, "hosts: ['*.example.com'], "+ports+", resolution: DYNAMIC_DNS"), 2},
		{"none of what is no name", entryYAML("a", older, "hosts: ['*', 'a.*.com'], "+ports+", resolution: DNS"), 0},
		{"of a host that is there twice, once", entryYAML("a", older, "hosts: [api.example.com, API.example.com], "+ports+", resolution: DNS"), 2},
		{"none for who opts out", strings.Replace(plain, "name: a,", "name: a, labels: {networking.istio.io/enable-autoallocate-ip: 'false'},", 1), 0},
	} {
		tr := translate.New()
		tr.Update(parse(t, tt.yaml), nil)
		if got := virtualOf(tr, "a"); len(got) != tt.want {
			t.Errorf("%s: %v, want %d", tt.sentence, got, tt.want)
		}
	}
	tr := translate.New()
	both := plain + given + strings.Replace(entryYAML("b", newer, "hosts: [api.example.com], "+ports+", resolution: DNS"), "name: b", "name: b", 1) + given
	tr.Update(parse(t, both), nil)
	if d := cmp.Diff([]string{"api.example.com=240.240.0.7", "api.example.com=2001:2::7"}, virtualOf(tr, "a")); d != "" {
		t.Errorf("what is given stays (-want +got):\n%s", d)
	}
	for _, a := range virtualOf(tr, "b") {
		if slices.Contains(virtualOf(tr, "a"), a) {
			t.Errorf("%s is given twice; the younger entry is to get another", a)
		}
	}
}

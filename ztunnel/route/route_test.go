package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
)

// The world of these tests. What whole scenarios show is in e2e/scenario; here
// is what they cannot reach.

func key(name string) mesh.ServiceKey { return mesh.ServiceKey{Namespace: "shop", Hostname: name} }

func to(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

type option func(*mesh.Workload)

func serves(name string, ports ...mesh.Port) option {
	return func(w *mesh.Workload) {
		if w.Services == nil {
			w.Services = map[mesh.ServiceKey][]mesh.Port{}
		}
		w.Services[key(name)] = ports
	}
}

func capacity(n uint32) option { return func(w *mesh.Workload) { w.Capacity = n } }

func in(network string) option { return func(w *mesh.Workload) { w.Network = network } }

func unhealthy(w *mesh.Workload) { w.Unhealthy = true }

func tunnel(port uint16) option { return func(w *mesh.Workload) { w.AppTunnelPort = port } }

func behind(g mesh.GatewayAddress) option { return func(w *mesh.Workload) { w.Waypoint = g } }

func pod(name, ip string, options ...option) *mesh.Workload {
	w := &mesh.Workload{
		UID: "c//Pod/shop/" + name, Name: name, Namespace: "shop", TrustDomain: "td", ServiceAccount: name,
		Tunnel: mesh.TunnelHBONE, Capacity: 1, Policies: []mesh.PolicyKey{},
	}
	if ip != "" {
		w.Addresses = []netip.Addr{netip.MustParseAddr(ip)}
	}
	for _, o := range options {
		o(w)
	}
	return w
}

func service(name, vip string, change func(*mesh.Service)) *mesh.Service {
	a := netip.MustParseAddr(vip)
	s := &mesh.Service{
		Name: name, Namespace: "shop", Hostname: name, Ports: []mesh.Port{{Service: 80, Target: 8080}},
		Addresses: []mesh.NetworkPrefix{{Prefix: netip.PrefixFrom(a, a.BitLen())}},
	}
	if change != nil {
		change(s)
	}
	return s
}

func see(objects ...any) *view.View {
	m := mesh.Model{Workloads: map[string]*mesh.Workload{}, Services: map[mesh.ServiceKey]*mesh.Service{}, Policies: map[mesh.PolicyKey]*mesh.Policy{}}
	for _, o := range objects {
		switch o := o.(type) {
		case *mesh.Workload:
			m.Workloads[o.UID] = o
		case *mesh.Service:
			m.Services[o.Key()] = o
		case *mesh.Policy:
			m.Policies[o.Key] = o
		}
	}
	s := view.NewStore()
	s.Replace(m)
	return s.View()
}

// show is a decision in a few words.
func show(d OutboundDecision) string {
	switch d.Kind {
	case Refuse:
		return "refuse: " + d.Reason
	case HBONE:
		var who []string
		for _, id := range d.Accept {
			who = append(who, id.ServiceAccount)
		}
		return fmt.Sprintf("hbone %s for %s as %s", d.Dial, d.Authority, strings.Join(who, ","))
	case Passthrough, Plain:
	}
	return fmt.Sprintf("%s %s", d.Kind, d.Dial)
}

// spread counts the decisions over every outcome of chance.
func spread(v *view.View, src *mesh.Workload, dst string, avoid ...netip.AddrPort) map[string]int {
	out := map[string]int{}
	for i, n := 0, 1; i < n; i++ {
		d := Outbound(v, src, to(dst), func(of int) int { n = max(n, of); return min(i, of-1) }, avoid)
		out[show(d)]++
	}
	return out
}

var (
	client   = pod("client", "10.0.0.9")
	byName   = mesh.GatewayAddress{Service: key("wp"), Port: 15008}
	byVIP    = mesh.GatewayAddress{Address: netip.MustParseAddr("10.96.0.9"), Port: 15008}
	byPod    = mesh.GatewayAddress{Address: netip.MustParseAddr("10.0.1.1"), Port: 15008}
	gateway  = mesh.Port{Service: 15008, Target: 15008}
	wp       = service("wp", "10.96.0.9", func(s *mesh.Service) { s.Ports = []mesh.Port{gateway} })
	wpPod    = pod("wp1", "10.0.1.1", serves("wp", gateway))
	sandwich = pod("wp2", "10.0.1.2", serves("wp"), tunnel(15088))
)

func TestOutbound(t *testing.T) {
	web := func(change func(*mesh.Service)) *mesh.Service { return service("web", "10.96.0.1", change) }
	vip := "10.96.0.1:80"
	for _, tt := range []struct {
		sentence string
		v        *view.View
		dst      string
		avoid    []netip.AddrPort
		want     map[string]int
	}{
		{
			"capacity is a weight and 0 is never chosen",
			see(web(nil), pod("a", "10.0.0.1", serves("web"), capacity(3)), pod("b", "10.0.0.2", serves("web")), pod("c", "10.0.0.3", serves("web"), capacity(0))), vip, nil,
			map[string]int{"hbone 10.0.0.1:15008 for 10.0.0.1:8080 as a": 3, "hbone 10.0.0.2:15008 for 10.0.0.2:8080 as b": 1},
		},
		{
			"nobody has capacity", see(web(nil), pod("c", "10.0.0.3", serves("web"), capacity(0))), vip, nil,
			map[string]int{"refuse: service shop/web has no endpoint to use: all have capacity 0": 1},
		},
		{
			"an endpoint that failed is avoided, by its own address",
			see(web(nil), pod("a", "10.0.0.1", serves("web")), pod("b", "10.0.0.2", serves("web"))), vip, []netip.AddrPort{to("10.0.0.1:8080")},
			map[string]int{"hbone 10.0.0.2:15008 for 10.0.0.2:8080 as b": 1},
		},
		{
			"an endpoint that failed is avoided, by its tunnel's address",
			see(web(nil), pod("a", "10.0.0.1", serves("web")), pod("b", "10.0.0.2", serves("web"))), vip, []netip.AddrPort{to("10.0.0.2:15008")},
			map[string]int{"hbone 10.0.0.1:15008 for 10.0.0.1:8080 as a": 1},
		},
		{
			"every endpoint failed", see(web(nil), pod("a", "10.0.0.1", serves("web"))), vip, []netip.AddrPort{to("10.0.0.1:8080")},
			map[string]int{"refuse: service shop/web has no endpoint to use: every one was tried already": 1},
		},
		{
			"a pod's own address has no other to try", see(pod("a", "10.0.0.1")), "10.0.0.1:80", []netip.AddrPort{to("10.0.0.1:15008")},
			map[string]int{"refuse: 10.0.0.1:80 was tried already": 1},
		},
		{
			"an endpoint's own port map beats the service's",
			see(web(nil), pod("a", "10.0.0.1", serves("web", mesh.Port{Service: 80, Target: 9090}))), vip, nil,
			map[string]int{"hbone 10.0.0.1:15008 for 10.0.0.1:9090 as a": 1},
		},
		{
			"further identities are accepted of a service's endpoints",
			see(web(func(s *mesh.Service) {
				s.SubjectAltNames = []spiffe.ID{{TrustDomain: "td", Namespace: "x", ServiceAccount: "alt"}}
			}), pod("a", "10.0.0.1", serves("web"))), vip, nil,
			map[string]int{"hbone 10.0.0.1:15008 for 10.0.0.1:8080 as a,alt": 1},
		},
		{
			"a service without balancing is dialled as it is", see(web(func(s *mesh.Service) { s.LoadBalancing.Mode = mesh.BalancePassthrough })), vip, nil,
			map[string]int{"passthrough 10.96.0.1:80": 1},
		},
		{
			"endpoints in another network need a gateway", see(web(nil), pod("a", "10.0.0.1", serves("web"), in("far"))), vip, nil,
			map[string]int{"refuse: service shop/web has no endpoint to use: they are in another network: gateways between networks are not supported": 1},
		},
		{
			"endpoints in this network are used before that",
			see(web(nil), pod("a", "10.0.0.1", serves("web"), in("far")), pod("b", "10.0.0.2", serves("web"))), vip, nil,
			map[string]int{"hbone 10.0.0.2:15008 for 10.0.0.2:8080 as b": 1},
		},
		{
			"an endpoint without an address is no use", see(web(nil), pod("a", "", serves("web"))), vip, nil,
			map[string]int{"refuse: service shop/web has no endpoint to use: none has an address of the service's family": 1},
		},
		{
			"an address in IPv6 form is its IPv4 one", see(web(nil), pod("a", "10.0.0.1", serves("web"))), "[::ffff:10.96.0.1]:80", nil,
			map[string]int{"hbone 10.0.0.1:15008 for 10.0.0.1:8080 as a": 1},
		},

		{
			"a waypoint by name", see(web(func(s *mesh.Service) { s.Waypoint = byName }), wp, wpPod), vip, nil,
			map[string]int{"hbone 10.0.1.1:15008 for 10.96.0.1:80 as wp1": 1},
		},
		{
			"a waypoint by its service's address", see(web(func(s *mesh.Service) { s.Waypoint = byVIP }), wp, wpPod), vip, nil,
			map[string]int{"hbone 10.0.1.1:15008 for 10.96.0.1:80 as wp1": 1},
		},
		{
			"a waypoint by its own address", see(web(func(s *mesh.Service) { s.Waypoint = byPod }), wpPod), vip, nil,
			map[string]int{"hbone 10.0.1.1:15008 for 10.96.0.1:80 as wp1": 1},
		},
		{
			"a waypoint that nobody knows closes, though endpoints are there", see(web(func(s *mesh.Service) { s.Waypoint = byName }), pod("a", "10.0.0.1", serves("web"))), vip, nil,
			map[string]int{"refuse: waypoint shop/wp: its service is not known here": 1},
		},
		{
			"a waypoint address that nobody has closes", see(web(func(s *mesh.Service) { s.Waypoint = byPod }), pod("a", "10.0.0.1", serves("web"))), vip, nil,
			map[string]int{"refuse: waypoint /10.0.1.1: its address is not known here": 1},
		},
		{
			"a waypoint that is not ready closes", see(web(func(s *mesh.Service) { s.Waypoint = byName }), wp, pod("wp1", "10.0.1.1", serves("wp", gateway), unhealthy)), vip, nil,
			map[string]int{"refuse: waypoint shop/wp: no instance to use: none is ready": 1},
		},
		{
			"a waypoint behind an application tunnel need not declare the port",
			see(web(func(s *mesh.Service) { s.Waypoint = byName }), service("wp", "10.96.0.9", nil), sandwich), vip, nil,
			map[string]int{"hbone 10.0.1.2:15008 for 10.96.0.1:80 as wp2": 1},
		},
		{
			"a waypoint instance that failed is avoided",
			see(web(func(s *mesh.Service) { s.Waypoint = byName }), wp, wpPod, pod("wp3", "10.0.1.3", serves("wp", gateway))), vip, []netip.AddrPort{to("10.0.1.1:15008")},
			map[string]int{"hbone 10.0.1.3:15008 for 10.96.0.1:80 as wp3": 1},
		},
		{
			"weighted waypoints share", see(web(func(s *mesh.Service) {
				s.Waypoint = byName
				s.WeightedWaypoints = []mesh.WeightedWaypoint{{Destination: byName, Weight: 3}, {Destination: mesh.GatewayAddress{Service: key("canary"), Port: 15008}, Weight: 1}}
			}), wp, wpPod), vip, nil,
			map[string]int{"hbone 10.0.1.1:15008 for 10.96.0.1:80 as wp1": 3, "refuse: waypoint shop/canary: its service is not known here": 1},
		},
		{
			"weighted waypoints without weight leave the single one", see(web(func(s *mesh.Service) {
				s.Waypoint = byName
				s.WeightedWaypoints = []mesh.WeightedWaypoint{{Destination: byPod}}
			}), wp, wpPod), vip, nil,
			map[string]int{"hbone 10.0.1.1:15008 for 10.96.0.1:80 as wp1": 1},
		},
		{
			"a pod's waypoint stands before its address", see(pod("a", "10.0.0.1", behind(byName)), wp, wpPod), "10.0.0.1:80", nil,
			map[string]int{"hbone 10.0.1.1:15008 for 10.0.0.1:80 as wp1": 1},
		},
		{
			"a pod's waypoint does not stand before its service", see(web(nil), pod("a", "10.0.0.1", serves("web"), behind(byName))), vip, nil,
			map[string]int{"hbone 10.0.0.1:15008 for 10.0.0.1:8080 as a": 1},
		},
		{
			"a pod's waypoint that nobody knows closes", see(pod("a", "10.0.0.1", behind(byName))), "10.0.0.1:80", nil,
			map[string]int{"refuse: waypoint shop/wp: its service is not known here": 1},
		},
	} {
		if d := cmp.Diff(tt.want, spread(tt.v, client, tt.dst, tt.avoid...)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
	}
}

func TestAWaypointGoesOnDirectly(t *testing.T) {
	v := see(service("web", "10.96.0.1", func(s *mesh.Service) { s.Waypoint = byName }), wp, wpPod,
		pod("a", "10.0.0.1", serves("web"), behind(byPod)))
	for dst, want := range map[string]string{"10.96.0.1:80": "hbone 10.0.0.1:15008 for 10.0.0.1:8080 as a", "10.0.0.1:80": "hbone 10.0.0.1:15008 for 10.0.0.1:80 as a"} {
		if d := cmp.Diff(map[string]int{want: 1}, spread(v, wpPod, dst)); d != "" {
			t.Errorf("the waypoint to %s (-want +got):\n%s", dst, d)
		}
	}
}

func TestAnUnknownSenderIsRefused(t *testing.T) {
	if d := Outbound(see(), nil, to("10.0.0.1:80"), nil, nil); d.Kind != Refuse || d.Reason == "" {
		t.Errorf("got %s", show(d))
	}
	if (OutboundDecision{}).Kind != Refuse {
		t.Error("a decision that nobody made must refuse")
	}
}

func TestOnlyAMissingWaypointIsWorthWaitingFor(t *testing.T) {
	web := service("web", "10.96.0.1", nil)
	for _, tt := range []struct {
		sentence string
		v        *view.View
		want     bool
	}{
		{"no endpoint", see(web), false},
		{"no waypoint", see(service("web", "10.96.0.1", func(s *mesh.Service) { s.Waypoint = byName })), true},
		{"a waypoint without instances", see(wp, service("web", "10.96.0.1", func(s *mesh.Service) { s.Waypoint = byName })), true},
	} {
		if d := Outbound(tt.v, client, to("10.96.0.1:80"), nil, nil); d.Kind != Refuse || d.Pending != tt.want {
			t.Errorf("%s: %s, pending %v, want %v", tt.sentence, show(d), d.Pending, tt.want)
		}
	}
}

func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"10.0.0.1:80", "[fd00::1]:80", "web.shop.svc:80", "[::1:80", ":80", "a:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, authority string) {
		host, port, err := splitAuthority(authority)
		if err != nil {
			return
		}
		again, p, err := splitAuthority(fmt.Sprintf("[%s]:%d", host, port))
		if host == "" && err == nil || port == 0 || err == nil && (again != host || p != port) {
			t.Errorf("%q is %q and %d, then %q and %d", authority, host, port, again, p)
		}
	})
}

func TestLocalityRanks(t *testing.T) {
	at := func(region, zone, node, network string) option {
		return func(w *mesh.Workload) {
			w.Locality, w.Node, w.Network = mesh.Locality{Region: region, Zone: zone}, node, network
		}
	}
	src := pod("client", "10.0.0.9", at("r1", "z1", "n1", ""))
	all := map[string]*mesh.Workload{
		"node":   pod("node", "10.0.0.1", serves("web"), at("r1", "z1", "n1", "")),
		"zone":   pod("zone", "10.0.0.2", serves("web"), at("r1", "z1", "n2", "")),
		"region": pod("region", "10.0.0.3", serves("web"), at("r1", "z2", "n3", "")),
		"else":   pod("else", "10.0.0.4", serves("web"), at("r2", "z1", "n1", "")),
	}
	prefer := []mesh.Scope{mesh.ScopeNetwork, mesh.ScopeRegion, mesh.ScopeZone, mesh.ScopeNode}
	for _, tt := range []struct {
		sentence string
		mode     mesh.BalancingMode
		there    string
		want     string
	}{
		{"failover takes the nearest", mesh.BalanceFailover, "node zone region else", "node"},
		{"else the zone", mesh.BalanceFailover, "zone region else", "zone"},
		{"else the region", mesh.BalanceFailover, "region else", "region"},
		{"else anything; equal names further down do not count", mesh.BalanceFailover, "else", "else"},
		{"strict takes full matches", mesh.BalanceStrict, "node zone region else", "node"},
		{"strict takes nothing else", mesh.BalanceStrict, "zone region else", "none is where its policy of locality demands"},
		{"any takes all", mesh.BalanceAny, "node else", "else node"},
	} {
		objects := []any{service("web", "10.96.0.1", func(s *mesh.Service) { s.LoadBalancing = mesh.LoadBalancing{Mode: tt.mode, Preference: prefer} })}
		for _, name := range strings.Fields(tt.there) {
			objects = append(objects, all[name])
		}
		var got []string
		for text := range spread(see(objects...), src, "10.96.0.1:80") {
			_, after, ok := strings.Cut(text, " as ")
			if !ok {
				_, after, _ = strings.Cut(text, "to use: ")
			}
			got = append(got, after)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %q, want %q", tt.sentence, got, tt.want)
		}
	}
}

func TestInbound(t *testing.T) {
	local := pod("web", "10.0.0.1", serves("web", mesh.Port{Service: 80, Target: 8080}))
	named := pod("named", "10.0.0.2", serves("named"))
	v := see(local, named, wpPod, sandwich, wp, service("web", "10.96.0.1", func(s *mesh.Service) { s.Waypoint = byName }),
		service("weighted", "10.96.0.4", func(s *mesh.Service) {
			s.WeightedWaypoints = []mesh.WeightedWaypoint{{Destination: byName, Weight: 1}}
		}),
		service("named", "10.96.0.2", func(s *mesh.Service) { s.Ports[0].Target = 0 }), service("other", "10.96.0.3", nil),
		pod("guarded", "10.0.0.3", behind(byName)))
	who := client.Identity()
	for _, tt := range []struct {
		sentence  string
		local     *mesh.Workload
		authority string
		conn      string
		want      string
	}{
		{"its own address", local, "10.0.0.1:8080", "10.0.0.1:15008", "200 10.0.0.1:8080"},
		{"its own address in IPv6 form", local, "[::ffff:10.0.0.1]:8080", "10.0.0.1:15008", "200 10.0.0.1:8080"},
		{"a port that no service has", local, "10.0.0.1:9999", "10.0.0.1:15008", "200 10.0.0.1:9999"},
		{"another address", local, "10.0.0.2:8080", "10.0.0.1:15008", "400 10.0.0.2 is not the address 10.0.0.1 that was connected to"},
		{"its service's address", local, "10.96.0.1:80", "10.0.0.1:15008", "400 10.96.0.1 is not the address 10.0.0.1 that was connected to"},
		{"the outside", local, "192.0.2.1:80", "10.0.0.1:15008", "400 192.0.2.1 is not the address 10.0.0.1 that was connected to"},
		{"loopback", local, "127.0.0.1:80", "10.0.0.1:15008", "400 127.0.0.1 is not the address 10.0.0.1 that was connected to"},
		{"its proxy's port", local, "10.0.0.1:15008", "10.0.0.1:15008", "503 port 15008 is the proxy's own"},
		{"no port", local, "10.0.0.1", "10.0.0.1:15008", `400 authority "10.0.0.1" has no port`},
		{"port 0", local, "10.0.0.1:0", "10.0.0.1:15008", `400 authority "10.0.0.1:0" has no valid port`},
		{"a port too big", local, "10.0.0.1:65536", "10.0.0.1:15008", `400 authority "10.0.0.1:65536" has no valid port`},
		{"IPv6 without brackets", local, "fd00::1:80", "10.0.0.1:15008", `400 authority "fd00::1:80" wants brackets`},
		{"half a bracket", local, "[fd00::1:80", "10.0.0.1:15008", `400 authority "[fd00::1:80" is no address`},
		{"its service's name", local, "web:80", "10.0.0.1:15008", "200 10.0.0.1:8080 web"},
		{"its service's name with a dot", local, "web.:80", "10.0.0.1:15008", "200 10.0.0.1:8080 web"},
		{"a port that its service does not have", local, "web:81", "10.0.0.1:15008", "503 the destination does not serve port 81 of service shop/web"},
		{"a named port that it does not have", named, "named:80", "10.0.0.2:15008", "503 the destination does not serve port 80 of service shop/named"},
		{"the name of another's service", local, "other:80", "10.0.0.1:15008", "503 the destination is no endpoint of service shop/other"},
		{"a name that nobody has", local, "nobody:80", "10.0.0.1:15008", "503 service nobody is not known here"},
		{"a waypoint takes its service's address", wpPod, "10.96.0.1:80", "10.0.1.1:15008", "200 10.0.1.1:80"},
		{"a waypoint takes a weighted service's address", wpPod, "10.96.0.4:80", "10.0.1.1:15008", "200 10.0.1.1:80"},
		{"a waypoint takes its service's name", wpPod, "web:80", "10.0.1.1:15008", "200 10.0.1.1:80 web"},
		{"a waypoint takes its pod's address", wpPod, "10.0.0.3:80", "10.0.1.1:15008", "200 10.0.1.1:80"},
		{"a waypoint takes no other's", wpPod, "10.96.0.3:80", "10.0.1.1:15008", "400 10.96.0.3 is not the address 10.0.1.1 that was connected to"},
		{"a waypoint takes no pod's that is not behind it", wpPod, "10.0.0.1:80", "10.0.1.1:15008", "400 10.0.0.1 is not the address 10.0.1.1 that was connected to"},
		{"an application tunnel takes everything at its port", sandwich, "192.0.2.1:80", "10.0.1.2:15008", "200 10.0.1.2:15088"},
		{"plaintext goes where it went", local, "", "10.0.0.1:8080", "200 10.0.0.1:8080"},
		{"plaintext to the proxy", local, "", "10.0.0.1:15006", "503 port 15006 is the proxy's own"},
		{"an unknown pod", nil, "10.0.0.1:80", "10.0.0.1:15008", "503 the destination workload is not known here"},
	} {
		d := Inbound(v, tt.local, InboundRequest{Authority: tt.authority, ConnDst: to(tt.conn), Source: who, SourceIP: netip.MustParseAddr("10.0.0.9")})
		got := fmt.Sprint(d.Status, " ", d.Reason)
		if d.Status == 200 {
			got = fmt.Sprint(d.Status, " ", d.Upstream)
			if d.Service != nil && tt.authority != "" && strings.ContainsAny(tt.authority[:1], "wno") {
				got += " " + d.Service.Name
			}
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.sentence, got, tt.want)
		}
	}
}

func TestInboundIdentity(t *testing.T) {
	local := pod("web", "10.0.0.1")
	strict := &mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: "strict"}, Scope: mesh.ScopeNamespace, Action: mesh.ActionDeny, Rules: []mesh.Rule{
		{Clauses: []mesh.Clause{{Matches: []mesh.Match{{NotPrincipals: []mesh.StringMatch{{Op: mesh.OpPresence}}}}}}},
	}}
	v := see(local, strict)
	if d := Inbound(v, local, InboundRequest{Authority: "10.0.0.1:80", ConnDst: to("10.0.0.1:15008")}); d.Status != 401 || d.Verdict.Allow {
		t.Errorf("a tunnel without an identity got %d %s", d.Status, d.Reason)
	}
	// An identity that a plaintext connection claims is not looked at.
	if d := Inbound(v, local, InboundRequest{ConnDst: to("10.0.0.1:80"), Source: client.Identity()}); d.Status != 401 || d.Verdict.Cause != policy.CauseDenied {
		t.Errorf("plaintext with an identity got %d %s", d.Status, d.Reason)
	}
	if d := Inbound(v, local, InboundRequest{Authority: "10.0.0.1:80", ConnDst: to("10.0.0.1:15008"), Source: client.Identity()}); d.Status != 200 {
		t.Errorf("a tunnel with an identity got %d %s", d.Status, d.Reason)
	}
}

func TestJudgeLooksAtTheCurrentRecord(t *testing.T) {
	was := pod("web", "10.0.0.1")
	now := pod("web", "10.0.0.1")
	deny := &mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: "deny"}, Scope: mesh.ScopeSelector, Action: mesh.ActionDeny, Rules: []mesh.Rule{{}}}
	now.Policies = []mesh.PolicyKey{deny.Key}
	c := policy.Connection{Source: client.Identity(), SourceIP: client.Addresses[0], Destination: to("10.0.0.1:80")}
	for _, tt := range []struct {
		sentence string
		v        *view.View
		local    *mesh.Workload
		want     bool
	}{
		{"the record has not changed", see(was, deny), was, true},
		{"a policy was attached since", see(now, deny), was, false},
		{"a policy was detached since", see(was, deny), now, true},
		{"the attached policy is not here", see(now), was, false},
		{"the record is gone: the last one counts", see(deny), now, false},
		{"the record is gone: the last one counts, open", see(deny), was, true},
		{"no record at all", see(), nil, false},
	} {
		if v := Judge(tt.v, tt.local, c); v.Allow != tt.want {
			t.Errorf("%s: %q, want allow %v", tt.sentence, v, tt.want)
		}
	}
}

func TestTheServiceThatWasMeant(t *testing.T) {
	local := pod("web", "10.0.0.1", serves("a", mesh.Port{Service: 80, Target: 8080}), serves("b", mesh.Port{Service: 80, Target: 8080}), serves("c", mesh.Port{Service: 81, Target: 9090}))
	v := see(local, service("a", "10.96.0.1", nil), service("b", "10.96.0.2", nil), service("c", "10.96.0.3", nil), service("d", "10.96.0.4", nil))
	for _, tt := range []struct{ sentence, host, port, want string }{
		{"what the peer says", "b", "8080", "b"},
		{"not what it is no endpoint of", "d", "8080", "a"},
		{"without a word, the first at the port", "", "8080", "a"},
		{"the only one at the port", "", "9090", "c"},
		{"none at the port", "", "7", ""},
	} {
		d := Inbound(v, local, InboundRequest{Authority: "10.0.0.1:" + tt.port, ConnDst: to("10.0.0.1:15008"), Source: client.Identity(), Host: tt.host})
		got := ""
		if d.Service != nil {
			got = d.Service.Name
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.sentence, got, tt.want)
		}
	}
}

func BenchmarkOutbound(b *testing.B) {
	for _, n := range []int{2, 100, 1000} {
		objects := []any{service("web", "10.96.0.1", nil)}
		for i := range n {
			objects = append(objects, pod(fmt.Sprint("p", i), fmt.Sprintf("10.1.%d.%d", i>>8, i&255), serves("web")))
		}
		v := see(objects...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Outbound(v, client, to("10.96.0.1:80"), func(n int) int { return n / 2 }, nil)
			}
		})
	}
}

package route

import (
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

func takesDatagrams(w *mesh.Workload) { w.Settings.Datagrams = true }

// TestWhereDatagramsGo: where both ends have it so, by a tunnel; what a waypoint is
// for, nowhere; what the mesh does not know, as it is.
func TestWhereDatagramsGo(t *testing.T) {
	names := key("names")
	declared := func(s *mesh.Service) {
		s.DatagramPorts = []mesh.Port{{Service: 53, Target: 5353}, {Service: 443}}
	}
	serving := serves("names")
	named := func(w *mesh.Workload) {
		w.Settings.NamedDatagramPorts = []mesh.NamedPort{{Of: key("other"), Service: 443, Target: 1}, {Of: names, Service: 443, Target: 8443}}
	}
	registryOnly := pod("client", "10.0.0.9", func(w *mesh.Workload) { w.Settings.RegistryOnly = true })
	for _, tt := range []struct {
		sentence string
		objects  []any
		src      *mesh.Workload
		dst      string
		want     string
	}{
		{"a pod whose UDP is the mesh's", []any{pod("server", "10.0.1.1", takesDatagrams)}, client, "10.0.1.1:5353", "hbone 10.0.1.1:15008 for 10.0.1.1:5353 as server"},
		{"a pod whose TCP alone is", []any{pod("server", "10.0.1.1")}, client, "10.0.1.1:5353", "plain 10.0.1.1:5353"},
		{"a pod behind a waypoint", []any{pod("server", "10.0.1.1", takesDatagrams, behind(byName))}, client, "10.0.1.1:5353", "refuse: the destination is behind waypoint shop/wp, which takes no UDP"},
		{"a pod of another network", []any{pod("server", "10.0.1.1", takesDatagrams, in("far"))}, client, "10.0.1.1:5353", "passthrough 10.0.1.1:5353"},
		{"nothing of the mesh", nil, client, "192.0.2.1:443", "passthrough 192.0.2.1:443"},
		{"nothing of the mesh, where that is closed", nil, registryOnly, "192.0.2.1:443", "refuse: nothing of the mesh is at 192.0.2.1:443, and outboundTrafficPolicy is REGISTRY_ONLY"},
		{"a sender who is not known", nil, nil, "10.0.1.1:53", "refuse: the workload that sends is not known here"},
		{"the proxy's own socket", nil, client, "127.0.0.1:15001", "refuse: 127.0.0.1:15001 is the proxy's own port"},
		{"a service's numbered port", []any{service("names", "10.96.0.1", declared), pod("server", "10.0.1.1", takesDatagrams, serving)}, client, "10.96.0.1:53", "hbone 10.0.1.1:15008 for 10.0.1.1:5353 as server"},
		{"a service's named port", []any{service("names", "10.96.0.1", declared), pod("server", "10.0.1.1", takesDatagrams, serving, named)}, client, "10.96.0.1:443", "hbone 10.0.1.1:15008 for 10.0.1.1:8443 as server"},
		{"a name that no endpoint has", []any{service("names", "10.96.0.1", declared), pod("server", "10.0.1.1", takesDatagrams, serving)}, client, "10.96.0.1:443", "refuse: service shop/names has no endpoint to use: none serves the port"},
		{"an endpoint whose UDP is not the mesh's", []any{service("names", "10.96.0.1", declared), pod("server", "10.0.1.1", serving)}, client, "10.96.0.1:53", "plain 10.0.1.1:5353"},
		{"a service without an endpoint", []any{service("names", "10.96.0.1", declared)}, client, "10.96.0.1:53", "refuse: service shop/names has no endpoint to use: it has none"},
		{"a port of TCP alone", []any{service("names", "10.96.0.1", declared), pod("server", "10.0.1.1", takesDatagrams, serving)}, client, "10.96.0.1:80", "passthrough 10.96.0.1:80"},
		{"a service behind a waypoint", []any{service("names", "10.96.0.1", func(s *mesh.Service) { declared(s); s.Waypoint = byName })}, client, "10.96.0.1:53", "refuse: the destination is behind waypoint shop/wp, which takes no UDP"},
	} {
		d := Datagrams(see(tt.objects...), tt.src, to(tt.dst), func(int) int { return 0 }, nil, func(mesh.ServiceKey) string { return "" })
		if got := show(d); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.sentence, got, tt.want)
		}
	}
}

package route

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestRegistryOnly(t *testing.T) {
	bound := pod("client", "10.0.0.9", func(w *mesh.Workload) { w.Settings.RegistryOnly = true })
	external := service("api", "240.240.0.1", func(s *mesh.Service) {
		s.Addresses = append(s.Addresses, mesh.NetworkPrefix{Prefix: netip.MustParsePrefix("192.0.2.0/24")})
		s.LoadBalancing.Mode = mesh.BalancePassthrough
	})
	host := pod("node", "10.9.9.9", func(w *mesh.Workload) { w.NetworkMode = mesh.NetworkHost })
	v := see(bound, external, service("web", "10.96.0.1", nil), pod("a", "10.0.0.1", serves("web")), host)
	for _, tt := range []struct {
		sentence, dst string
		open          bool
	}{
		{"a service of the mesh", "10.96.0.1:80", true},
		{"a workload of the mesh", "10.0.0.1:80", true},
		{"itself", "10.0.0.9:80", true},
		{"loopback", "127.0.0.1:80", true},
		{"loopback in IPv6 form", "[::ffff:127.0.0.1]:80", true},
		{"what an entry has at its address", "240.240.0.1:80", true},
		{"what an entry has in its block", "192.0.2.77:80", true},
		{"the outside", "198.51.100.1:443", false},
		{"the outside, IPv6", "[2001:db8::1]:443", false},
		{"the node, which its pods of the host network do not stand for", "10.9.9.9:443", false},
	} {
		d := Outbound(v, bound, to(tt.dst), func(int) int { return 0 }, nil)
		if d.Outlawed == tt.open || (d.Kind == Refuse) == tt.open {
			t.Errorf("%s: %s", tt.sentence, show(d))
		}
		if !tt.open && !strings.Contains(d.Reason, "REGISTRY_ONLY") {
			t.Errorf("%s: the reason is %q", tt.sentence, d.Reason)
		}
		if again := Outlawed(v, bound, to(tt.dst)); (again == "") != tt.open {
			t.Errorf("%s, open already: %q", tt.sentence, again)
		}
		if d := Outbound(v, client, to(tt.dst), func(int) int { return 0 }, nil); d.Outlawed {
			t.Errorf("%s, for who may dial anything: %s", tt.sentence, show(d))
		}
	}
}

package head

import (
	"testing"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

func TestTargetsOfUDP(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/.well-known/masque/udp/10.0.0.7/53/", "10.0.0.7:53"},
		{"/.well-known/masque/udp/fd00%3A%3A7/53/", "[fd00::7]:53"},
		{"/.well-known/masque/udp/fd00::7/53/", "[fd00::7]:53"},
		{"/.well-known/masque/udp/dns.shop.svc/5353/", "dns.shop.svc:5353"},
		{"/.well-known/masque/udp/10.0.0.7/53", ""},
		{"/.well-known/masque/udp/10.0.0.7/0/", ""},
		{"/.well-known/masque/udp/10.0.0.7/65536/", ""},
		{"/.well-known/masque/udp/10.0.0.7/053/", ""},
		{"/.well-known/masque/udp//53/", ""},
		{"/.well-known/masque/udp/a%2Fb/53/", ""},
		{"/.well-known/masque/udp/%zz/53/", ""},
		{"/.well-known/masque/udp/fe80%3A%3A1%25eth0/53/", ""},
		{"/.well-known/masque/udp/10.0.0.7/53/more/", ""},
		{"/masque/udp/10.0.0.7/53/", ""},
	} {
		got, ok := target(tt.path)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s names %q, %v; want %q", tt.path, got, ok, tt.want)
		}
	}
}

func FuzzTargetsOfUDP(f *testing.F) {
	f.Add("/.well-known/masque/udp/fd00%3A%3A7/53/")
	f.Add("/.well-known/masque/udp/dns.shop.svc/5353/")
	f.Fuzz(func(t *testing.T, path string) {
		authority, ok := target(path)
		if !ok {
			return
		}
		pseudo, _, err := Request(hbone.Request{Protocol: hbone.ProtocolUDP, Authority: authority}, "10.0.0.1:15008")
		if err != nil {
			t.Fatalf("%q names %q, which cannot be asked for: %v", path, authority, err)
		}
		if again, ok := target(pseudo[len(pseudo)-1].Value); again != authority || !ok {
			t.Errorf("%q names %q, then %q", path, authority, again)
		}
	})
}

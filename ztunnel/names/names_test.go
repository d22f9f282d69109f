package names

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

const domain = "cluster.local"

type world struct{ mesh.Model }

func (w world) service(namespace, hostname string, change func(*mesh.Service), addresses ...string) {
	name, _, _ := strings.Cut(hostname, ".")
	s := &mesh.Service{Name: name, Namespace: namespace, Hostname: hostname, Canonical: strings.HasSuffix(hostname, ".svc."+domain)}
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			at := netip.MustParseAddr(a)
			p = netip.PrefixFrom(at, at.BitLen())
		}
		s.Addresses = append(s.Addresses, mesh.NetworkPrefix{Prefix: p})
	}
	if change != nil {
		change(s)
	}
	w.Services[s.Key()] = s
}

func (w world) pod(name, of string, change func(*mesh.Workload), addresses ...string) {
	x := &mesh.Workload{UID: "c//Pod/shop/" + name, Name: name, Namespace: "shop", Services: map[mesh.ServiceKey][]mesh.Port{{Namespace: "shop", Hostname: of + ".shop.svc." + domain}: nil}}
	for _, a := range addresses {
		x.Addresses = append(x.Addresses, netip.MustParseAddr(a))
	}
	if change != nil {
		change(x)
	}
	w.Workloads[x.UID] = x
}

func newWorld() *view.View {
	w := world{mesh.Model{Workloads: map[string]*mesh.Workload{}, Services: map[mesh.ServiceKey]*mesh.Service{}}}
	named := func(n, of string) func(*mesh.Workload) {
		return func(w *mesh.Workload) { w.Settings.Hostname, w.Settings.Subdomain = n, of }
	}
	w.service("shop", "web.shop.svc.cluster.local", nil, "10.96.0.1", "fd96::1")
	w.service("bank", "web.bank.svc.cluster.local", nil, "10.96.0.2")
	w.service("shop", "db.shop.svc.cluster.local", nil)
	w.service("shop", "empty.shop.svc.cluster.local", nil)
	w.service("shop", "early.shop.svc.cluster.local", func(s *mesh.Service) { s.LoadBalancing.AllowUnhealthy = true })
	w.service("shop", "four.shop.svc.cluster.local", func(s *mesh.Service) { s.Families = mesh.FamiliesIPv4 })
	w.service("shop", "api.example.com", nil, "240.240.0.1", "2001:2::1")
	w.service("bank", "api.example.com", nil, "240.240.0.2")
	w.service("bank", "hidden.example.com", func(s *mesh.Service) { s.NamespaceOnly = true }, "240.240.0.3")
	w.service("shop", "nowhere.example.com", nil)
	w.service("shop", "block.example.com", nil, "192.0.2.0/24")
	w.service("shop", "far.example.com", func(s *mesh.Service) {
		s.Addresses = []mesh.NetworkPrefix{{Network: "far", Prefix: netip.MustParsePrefix("240.240.0.9/32")}}
	})
	w.service("shop", "*.wild.example.com", nil, "240.240.0.4")
	w.service("shop", "*.deep.wild.example.com", nil, "240.240.0.5")
	w.service("shop", "*.local", nil, "240.240.0.6")
	w.service("shop", "*.shop.svc.cluster.local", nil, "240.240.0.7")
	w.service("bank", "list.example.com", func(s *mesh.Service) { s.NamespaceOnly, s.VisibleIn = true, []string{"desk", "shop"} }, "240.240.0.8")
	w.service("shop", "given.example.com", func(s *mesh.Service) { s.NamespaceOnly, s.VisibleIn = true, []string{"bank"} }, "240.240.0.10")
	w.pod("db-0", "db", named("db-0", "db"), "10.0.0.10", "fd00::10")
	w.pod("db-1", "db", named("db-1", "db"), "10.0.0.11")
	w.pod("db-2", "db", func(w *mesh.Workload) { named("db-2", "db")(w); w.Unhealthy = true }, "10.0.0.12")
	w.pod("db-nameless", "db", nil, "10.0.0.13")
	w.pod("db-other", "db", named("db-other", "else"), "10.0.0.14")
	w.pod("early-0", "early", func(w *mesh.Workload) { w.Unhealthy = true }, "10.0.0.20")
	w.pod("four-0", "four", nil, "10.0.0.30", "fd00::30")
	w.pod("far-0", "db", func(w *mesh.Workload) { w.Network = "far" }, "10.0.0.40")
	s := view.NewStore()
	s.Replace(w.Model)
	return s.View()
}

func TestNames(t *testing.T) {
	v := newWorld()
	for _, tt := range []struct {
		sentence, name string
		v6             bool
		want           string // addresses, "; as" the alias; "ask" is not known
	}{
		{"a service by its whole name", "web.shop.svc.cluster.local", false, "10.96.0.1"},
		{"its IPv6 address", "web.shop.svc.cluster.local", true, "fd96::1"},
		{"a service that has no such address", "web.bank.svc.cluster.local", true, ""},
		{"one label", "web", false, "10.96.0.1"},
		{"two labels", "web.bank", false, "10.96.0.2"},
		{"with svc", "web.bank.svc", false, "10.96.0.2"},
		{"a search domain behind it is the first that a resolver tries", "web.shop.svc.cluster.local.shop.svc.cluster.local", false, "10.96.0.1; as web.shop.svc.cluster.local"},
		{"another namespace's, as a resolver asks for it first", "web.bank.shop.svc.cluster.local", false, "10.96.0.2; as web.bank"},
		{"with svc, as a resolver asks for it first", "web.bank.svc.shop.svc.cluster.local", false, "10.96.0.2; as web.bank.svc"},
		{"a service of the cluster that is not there", "gone.shop.svc.cluster.local", false, "ask"},
		{"a namespace that is not there", "web.nowhere.svc.cluster.local", false, "ask"},

		{"an entry", "api.example.com", false, "240.240.0.1"},
		{"an entry, IPv6", "api.example.com", true, "2001:2::1"},
		{"an entry with a search domain", "api.example.com.shop.svc.cluster.local", false, "240.240.0.1; as api.example.com"},
		{"an entry with the second search domain", "api.example.com.svc.cluster.local", false, "240.240.0.1; as api.example.com"},
		{"an entry with the last search domain", "api.example.com.cluster.local", false, "240.240.0.1; as api.example.com"},
		{"below an entry is another name", "x.api.example.com", false, "ask"},
		{"an entry that is for its namespace", "hidden.example.com", false, "ask"},
		{"an entry of another namespace that is for this one too", "list.example.com", false, "240.240.0.8"},
		{"an entry that is for another namespace, not for its own", "given.example.com", false, "ask"},
		{"an entry without addresses", "nowhere.example.com", false, "ask"},
		{"an entry with a block", "block.example.com", false, "ask"},
		{"an entry of another network", "far.example.com", false, "ask"},
		{"the outside", "www.example.org", false, "ask"},
		{"the root", "", false, "ask"},

		{"a wildcard", "a.wild.example.com", false, "240.240.0.4"},
		{"a wildcard, deeper", "a.b.wild.example.com", false, "240.240.0.4"},
		{"the longest wildcard", "a.deep.wild.example.com", false, "240.240.0.5"},
		{"the wildcard's own domain", "wild.example.com", false, "ask"},
		{"a wildcard, with a search domain", "a.wild.example.com.shop.svc.cluster.local", false, "240.240.0.4"},
		{"a wildcard of a top-level domain", "printer.local", false, "240.240.0.6"},
		{"a wildcard is not for what is under the cluster's domain", "gone.bank.svc.cluster.local", false, "ask"},
		{"nor one that is itself under it", "gone.shop.svc.cluster.local", false, "ask"},
		{"nor for the outside as a resolver asks for it first", "www.example.org.shop.svc.cluster.local", false, "ask"},

		{"the pods of a headless service that are ready", "db.shop.svc.cluster.local", false, "10.0.0.10 10.0.0.11 10.0.0.13 10.0.0.14"},
		{"their IPv6 addresses", "db.shop.svc.cluster.local", true, "fd00::10"},
		{"one pod of it", "db-1.db.shop.svc.cluster.local", false, "10.0.0.11"},
		{"one pod of it, short", "db-1.db", false, "10.0.0.11"},
		{"one pod of it, as a resolver asks first", "db-1.db.shop.svc.cluster.local.shop.svc.cluster.local", false, "10.0.0.11; as db-1.db.shop.svc.cluster.local"},
		{"one pod of it without that family", "db-1.db.shop.svc.cluster.local", true, ""},
		{"a pod that is not ready", "db-2.db.shop.svc.cluster.local", false, "ask"},
		{"a pod that has no name", "db-nameless.db.shop.svc.cluster.local", false, "ask"},
		{"a pod that is named under another service", "db-other.db.shop.svc.cluster.local", false, "ask"},
		{"a headless service without pods", "empty.shop.svc.cluster.local", false, "ask"},
		{"a headless service that publishes what is not ready", "early.shop.svc.cluster.local", false, "10.0.0.20"},
		{"a headless service of one family", "four.shop.svc.cluster.local", true, ""},
		{"a pod below a service with an address", "db-0.web.shop.svc.cluster.local", false, "ask"},
	} {
		client := &mesh.Workload{Namespace: "shop"}
		a, known := Resolve(v, Question{Client: client, Domain: domain, Name: tt.name, V6: tt.v6})
		got := "ask"
		if known {
			got = strings.Trim(fmt.Sprint(a.Addresses), "[]")
			if a.Alias != "" {
				got += "; as " + a.Alias
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (%s): -want +got:\n%s", tt.sentence, tt.name, d)
		}
	}
}

func TestWhoAsksMatters(t *testing.T) {
	v := newWorld()
	for _, tt := range []struct{ namespace, name, want string }{
		{"bank", "web", "[10.96.0.2]"},
		{"bank", "api.example.com", "[240.240.0.2]"},
		{"bank", "hidden.example.com", "[240.240.0.3]"},
		{"elsewhere", "api.example.com", "[240.240.0.2]"}, // the first by key
		{"elsewhere", "web", "[]"},
		{"desk", "list.example.com", "[240.240.0.8]"},
		{"bank", "list.example.com", "[]"}, // its own, which exportTo leaves out
		{"bank", "given.example.com", "[240.240.0.10]"},
	} {
		a, _ := Resolve(v, Question{Client: &mesh.Workload{Namespace: tt.namespace}, Domain: domain, Name: tt.name})
		if got := fmt.Sprint(a.Addresses); got != tt.want {
			t.Errorf("%s from %s: %s, want %s", tt.name, tt.namespace, got, tt.want)
		}
	}
}

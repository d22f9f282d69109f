package balance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// The world of these tests: a service web, port 80, with pods that serve it at
// 8080.

type option func(*mesh.Workload)

func capacity(n uint32) option { return func(w *mesh.Workload) { w.Capacity = n } }

func unready(w *mesh.Workload) { w.Unhealthy = true }

func place(region, zone string) option {
	return func(w *mesh.Workload) { w.Locality = mesh.Locality{Region: region, Zone: zone} }
}

func pod(name, ip string, options ...option) *mesh.Workload {
	w := &mesh.Workload{UID: name, Name: name, Capacity: 1}
	if ip != "" {
		w.Addresses = []netip.Addr{netip.MustParseAddr(ip)}
	}
	for _, o := range options {
		o(w)
	}
	return w
}

func endpoints(pods ...*mesh.Workload) []view.Endpoint {
	list := make([]view.Endpoint, len(pods))
	for i, w := range pods {
		list[i] = view.Endpoint{Workload: w, Ports: []mesh.Port{{Service: 80, Target: 8080}}}
	}
	return list
}

func many(n int, options ...option) []view.Endpoint {
	pods := make([]*mesh.Workload, n)
	for i := range n {
		pods[i] = pod(fmt.Sprint("pod-", i), fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), options...)
	}
	return endpoints(pods...)
}

func web() *mesh.Service {
	return &mesh.Service{Name: "web", Namespace: "shop", Hostname: "web", Ports: []mesh.Port{{Service: 80, Target: 8080, App: mesh.AppHTTP11}}}
}

func ask(list []view.Endpoint) Query { return Query{Service: web(), Port: 80, Endpoints: list} }

// spread picks n times, each over before the next, and counts by name.
func spread(t *testing.T, b *Balancer, q Query, n int) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range n {
		c, err := b.Pick(q)
		if err != nil {
			t.Fatal(err)
		}
		count[c.Workload.Name]++
		c.Done(Result{Status: 200})
	}
	return count
}

// about fails unless got is within a fifth, or 30, of want.
func about(t *testing.T, what string, got, want int) {
	t.Helper()
	if d := max(got-want, want-got); d > max(30, want/5) {
		t.Errorf("%s was chosen %d times, want about %d", what, got, want)
	}
}

var kinds = map[string]mesh.BalancerKind{
	"least": mesh.BalanceLeast, "round robin": mesh.BalanceRoundRobin, "random": mesh.BalanceRandom,
	"hash": mesh.BalanceHash, "original": mesh.BalanceOriginal,
}

func TestTheChoiceIsAnEndpointThatMayBeUsed(t *testing.T) {
	there := pod("there", "10.0.0.1")
	for _, c := range []struct {
		sentence string
		pods     []*mesh.Workload
		change   func(*Query)
		want     string
	}{
		{"the only endpoint is chosen, at its own port", []*mesh.Workload{there}, nil, "there 10.0.0.1:8080"},
		{"a service without endpoints has none", nil, nil, "it has none"},
		{"what is not ready is not chosen", []*mesh.Workload{pod("a", "10.0.0.1", unready)}, nil, "none is ready"},
		{"unless the service publishes it", []*mesh.Workload{pod("a", "10.0.0.1", unready)},
			func(q *Query) { q.Service.LoadBalancing.AllowUnhealthy = true }, "a 10.0.0.1:8080"},
		{"capacity 0 is never chosen", []*mesh.Workload{pod("a", "10.0.0.1", capacity(0))}, nil, "all have capacity 0"},
		{"what was tried is not chosen", []*mesh.Workload{there}, func(q *Query) { q.Avoid = []string{"there"} }, "every one was tried already"},
		{"a port that nobody serves has none", []*mesh.Workload{there}, func(q *Query) { q.Port = 81 }, "none serves the port"},
		{"another network is out of reach", []*mesh.Workload{there}, func(q *Query) { q.Local = &mesh.Workload{Network: "far"} }, "they are in another network"},
		{"an address of another family does not count", []*mesh.Workload{there}, func(q *Query) { q.Service.Families = mesh.FamiliesIPv6 }, "none has an address"},
		{"a workload that is only a name gives its port", []*mesh.Workload{pod("named", "", func(w *mesh.Workload) { w.Hostname = "a.example" })}, nil, "named invalid AddrPort"},
		{"the pinned endpoint is chosen", []*mesh.Workload{there, pod("pinned", "10.0.0.2")}, func(q *Query) { q.Pin = "pinned" }, "pinned 10.0.0.2:8080"},
		{"a pin that has vanished binds nobody", []*mesh.Workload{there}, func(q *Query) { q.Pin = "pinned" }, "there 10.0.0.1:8080"},
		{"a pin does not bring back what was tried", []*mesh.Workload{there, pod("pinned", "10.0.0.2")},
			func(q *Query) { q.Pin, q.Avoid = "pinned", []string{"pinned"} }, "there 10.0.0.1:8080"},
		{"a strict preference does not go far", []*mesh.Workload{pod("a", "10.0.0.1", place("r", "z"))}, func(q *Query) {
			q.Local = pod("me", "", place("r", "y"))
			q.Service.LoadBalancing = mesh.LoadBalancing{Preference: []mesh.Scope{mesh.ScopeZone}, Mode: mesh.BalanceStrict}
		}, "none is where its policy of locality demands"},
	} {
		for name, kind := range kinds {
			q := ask(endpoints(c.pods...))
			q.Settings.Balancer.Kind = kind
			if c.change != nil {
				c.change(&q)
			}
			got := ""
			if choice, err := NewBalancer().Pick(q); err != nil {
				var none *UnavailableError
				if !errors.As(err, &none) {
					t.Fatalf("%s: %T", c.sentence, err)
				}
				got = err.Error()
			} else {
				got = choice.Workload.Name + " " + choice.Address.String()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("%s (%s): got %q, want %q", c.sentence, name, got, c.want)
			}
		}
	}
}

func TestEveryKindSharesByCapacity(t *testing.T) {
	list := endpoints(pod("a", "10.0.0.1"), pod("b", "10.0.0.2", capacity(2)), pod("c", "10.0.0.3", capacity(5)), pod("d", "10.0.0.4", capacity(0)))
	for name, kind := range kinds {
		q := ask(list)
		q.Settings.Balancer = mesh.Balancer{Kind: kind, Hash: mesh.HashKey{SourceIP: true}}
		q.Hash = func(mesh.HashKey) (string, bool) { return fmt.Sprint(rand.Uint64()), true }
		got := spread(t, NewBalancer(), q, 8000)
		if kind == mesh.BalanceLeast || kind == mesh.BalanceOriginal { // two draws even out
			if got["a"] == 0 || got["a"] > got["b"] || got["b"] > got["c"] {
				t.Errorf("%s: %v", name, got)
			}
			continue
		}
		for pod, want := range map[string]int{"a": 1000, "b": 2000, "c": 5000} {
			about(t, name+" "+pod, got[pod], want)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{3, 100, 5000} {
		for name, kind := range kinds {
			b.Run(fmt.Sprintf("%s/%d", strings.ReplaceAll(name, " ", "-"), n), func(b *testing.B) {
				balancer := NewBalancer()
				q := ask(many(n))
				q.Settings.Balancer.Kind = kind
				q.Hash = func(mesh.HashKey) (string, bool) { return "somebody", true }
				b.ReportAllocs()
				for b.Loop() {
					c, err := balancer.Pick(q)
					if err != nil {
						b.Fatal(err)
					}
					c.Done(Result{Status: 200, Latency: 1e6})
				}
			})
		}
	}
}

package view

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/xds"
)

// answers is everything a view can be asked, over a small world.
func answers(v *View) map[string]string {
	out := map[string]string{}
	for i := range 4 {
		a := addr(fmt.Sprint("10.0.0.", i))
		if w := v.WorkloadByAddress("", a); w != nil {
			out["address "+a.String()] = w.UID
		}
		if s := v.ServiceByVIP("", a, "n1"); s != nil {
			out["vip "+a.String()] = s.Key().String()
		}
	}
	for _, w := range v.Workloads() {
		set := v.Policies(w)
		for _, p := range set.Policies {
			out["policies of "+w.UID] += p.Key.String() + " "
		}
		out["unknown of "+w.UID] = fmt.Sprint(set.Unknown)
		out["account "+w.Name] = fmt.Sprint(v.WorkloadByAccount(w.Namespace, w.Name, w.ServiceAccount).UID)
	}
	for _, k := range []mesh.ServiceKey{{Namespace: "n1", Hostname: "h1"}, {Namespace: "n1", Hostname: "h2"}, {Namespace: "n2", Hostname: "h1"}} {
		out["endpoints "+k.String()] = fmt.Sprint(names(v.Endpoints(k)))
		out["service "+k.String()] = fmt.Sprint(v.Service(k) != nil)
	}
	return out
}

func TestManyUpdatesLeadWhereOneDoes(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	of := func(texts ...string) string { return texts[r.IntN(len(texts))] }
	for round := range 20 {
		s := NewStore()
		model := mesh.Model{Workloads: map[string]*mesh.Workload{}, Services: map[mesh.ServiceKey]*mesh.Service{}, Policies: map[mesh.PolicyKey]*mesh.Policy{}}
		for step := range 40 {
			var put []any
			removed := []xds.Update{{Type: xds.TypeAddress}, {Type: xds.TypeAuthorization}}
			for range r.IntN(5) {
				w := pod(of("a", "b", "c"), "10.0.0."+of("0", "1", "2"), mesh.ServiceKey{Namespace: of("n1", "n2"), Hostname: of("h1", "h2")})
				w.Namespace = of("n1", "n2")
				w.NetworkMode = mesh.NetworkMode(r.IntN(2))
				w.Policies = []mesh.PolicyKey{{Namespace: of("n1", "n2"), Name: of("p", "q")}}
				svc := service(of("n1", "n2"), of("h1", "h2"), "10.0.0."+of("2", "3"), of("10.0.0.0/24", "10.0.0.2/31"))
				p := newPolicy(of("n1", "n2"), of("p", "q"), mesh.PolicyScope(r.IntN(3)))
				switch r.IntN(6) {
				case 0:
					delete(model.Workloads, w.UID)
					removed[0].Removed = append(removed[0].Removed, w.UID)
				case 1:
					delete(model.Services, svc.Key())
					removed[0].Removed = append(removed[0].Removed, svc.Key().String())
				case 2:
					delete(model.Policies, p.Key)
					removed[1].Removed = append(removed[1].Removed, p.Key.String())
				case 3:
					put, model.Services[svc.Key()] = append(put, svc), svc
				case 4:
					put, model.Policies[p.Key] = append(put, p), p
				default:
					put, model.Workloads[w.UID] = append(put, w), w
				}
			}
			// Removals go into the same response and are applied first, so what
			// was put before it was removed must not be in it.
			var kept []any
			for _, o := range put {
				switch o := o.(type) {
				case *mesh.Workload:
					if model.Workloads[o.UID] != nil {
						kept = append(kept, o)
					}
				case *mesh.Service:
					if model.Services[o.Key()] != nil {
						kept = append(kept, o)
					}
				case *mesh.Policy:
					if model.Policies[o.Key] != nil {
						kept = append(kept, o)
					}
				}
			}
			updates := upsert(kept...)
			updates[0].Removed, updates[1].Removed = removed[1].Removed, removed[0].Removed
			receive(t, s, updates...)
			fresh := NewStore()
			fresh.Replace(model)
			if d := cmp.Diff(answers(fresh.View()), answers(s.View())); d != "" {
				t.Fatalf("seed %d round %d step %d (-one +many):\n%s", seed, round, step, d)
			}
		}
	}
}

// world makes n pods in services of ten.
func world(n int) (mesh.Model, []*mesh.Workload) {
	m := mesh.Model{Workloads: map[string]*mesh.Workload{}, Services: map[mesh.ServiceKey]*mesh.Service{}}
	list := make([]*mesh.Workload, n)
	for i := range n {
		k := mesh.ServiceKey{Namespace: "ns", Hostname: fmt.Sprint("svc-", i/10)}
		if i%10 == 0 {
			m.Services[k] = service("ns", k.Hostname, fmt.Sprintf("10.200.%d.%d", i>>8&255, i&255))
		}
		w := pod(fmt.Sprint("pod-", i), fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255), k)
		m.Workloads[w.UID], list[i] = w, w
	}
	return m, list
}

func BenchmarkStore(b *testing.B) {
	for _, n := range []int{1000, 10000, 100000} {
		m, list := world(n)
		s := NewStore()
		s.Replace(m)
		updates := [2][]xds.Update{upsert(list[n/2])}
		changed := *list[n/2]
		changed.Unhealthy = true
		updates[1] = upsert(&changed)
		b.Run(fmt.Sprint("one-change/", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.Receive(b.Context(), updates[i%2][1])
			}
		})
		if n > 10000 {
			continue
		}
		b.Run(fmt.Sprint("first-response/", n), func(b *testing.B) {
			var all []any
			for _, w := range list {
				all = append(all, w)
			}
			first := upsert(all...)[1]
			for b.Loop() {
				NewStore().Receive(b.Context(), first)
			}
		})
	}
}

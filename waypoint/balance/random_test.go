package balance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/waypoint/circuit"
)

// world is a service whose endpoints come, go, sicken and move at random.
type world struct {
	*rand.Rand
	pods  [12]*mesh.Workload
	sick  [12]bool
	query Query
}

func (w *world) shuffle() {
	var there []*mesh.Workload
	for i := range w.pods {
		if w.pods[i] == nil || w.IntN(4) == 0 {
			p := pod(fmt.Sprintf("pod-%02d", i), fmt.Sprintf("10.0.%d.%d", i, w.IntN(2)), capacity(uint32(w.IntN(4))), place(w.region(), "z"))
			p.Unhealthy = w.IntN(4) == 0
			w.pods[i] = p
		}
		w.sick[i] = w.IntN(3) == 0
		if w.IntN(4) > 0 {
			there = append(there, w.pods[i])
		}
	}
	list := endpoints(there...)
	for i := range list {
		if w.IntN(10) == 0 {
			list[i].Ports = []mesh.Port{{Service: 81, Target: 8081}}
		}
	}
	w.query.Endpoints = list
}

func (w *world) region() string { return fmt.Sprint("region-", w.IntN(3)) }

func (w *world) settings() mesh.Settings {
	return mesh.Settings{
		Balancer: mesh.Balancer{
			Kind: mesh.BalancerKind(w.IntN(5)), PreferLocal: w.IntN(2) == 0, Warmup: time.Duration(w.IntN(2)) * time.Minute,
			Failover: []mesh.LocalityFailover{{From: "region-0", To: w.region()}},
		},
		Outlier: mesh.Outlier{Off: w.IntN(8) == 0, MaxEjectionPercent: w.IntN(101), MinHealthPercent: w.IntN(50)},
	}
}

// request is a query of the world of now.
func (w *world) request() Query {
	q := w.query
	q.Avoid = nil
	for range w.IntN(3) {
		q.Avoid = append(q.Avoid, fmt.Sprintf("pod-%02d", w.IntN(12)))
	}
	if w.IntN(5) == 0 {
		q.Pin = fmt.Sprintf("pod-%02d", w.IntN(12))
	}
	q.NoProbe = w.IntN(3) == 0
	key, has := fmt.Sprint(w.IntN(100)), w.IntN(4) > 0
	q.Hash = func(mesh.HashKey) (string, bool) { return key, has }
	return q
}

// usable are the endpoints that may be chosen by the rules that never bend.
func usable(q *Query) []string {
	var names []string
	for _, e := range q.Endpoints {
		w := e.Workload
		if e.Ports[0].Service == 80 && w.Capacity > 0 && !w.Unhealthy && !slices.Contains(q.Avoid, w.UID) {
			names = append(names, w.UID)
		}
	}
	return names
}

func TestWhateverHappensNoRuleIsBroken(t *testing.T) {
	seed := rand.Uint64()
	for round := range 10 {
		synctest.Test(t, func(t *testing.T) {
			w := &world{Rand: rand.New(rand.NewPCG(seed, uint64(round)))}
			w.query = Query{Service: web(), Port: 80, Local: pod("me", "", place("region-0", "z"))}
			w.query.Service.Ports[0].Target = 0 // each endpoint's own map tells
			b := NewBalancer()
			var open []Choice
			for step := range 4000 {
				if step%400 == 0 {
					w.query.Settings = w.settings()
				}
				if step%100 == 0 {
					w.shuffle()
				}
				q := w.request()
				c, err := b.Pick(q)
				may := usable(&q)
				var none *UnavailableError
				switch {
				case err != nil && !errors.As(err, &none):
					t.Fatalf("seed %d round %d step %d: %v", seed, round, step, err)
				case err != nil && len(q.Avoid) == 0 && len(may) > 0:
					t.Fatalf("seed %d round %d step %d: %v, but %v may be used", seed, round, step, err, may)
				case err == nil && !slices.Contains(may, c.Workload.UID):
					t.Fatalf("seed %d round %d step %d: %s was chosen of %v", seed, round, step, c.Workload.UID, may)
				case err == nil:
					open = append(open, c)
				}
				for len(open) > 0 && w.IntN(3) > 0 {
					i := w.IntN(len(open))
					open[i].Done(w.answer(open[i]))
					open = slices.Delete(open, i, i+1)
				}
				time.Sleep(time.Duration(w.IntN(30)) * time.Millisecond)
				w.check(t, b, fmt.Sprintf("seed %d round %d step %d", seed, round, step))
			}
			for _, c := range open {
				c.Done(Result{})
			}
			for _, g := range b.groups {
				if g.inFlight.Load() != 0 {
					t.Errorf("%d requests are in flight after all have ended", g.inFlight.Load())
				}
			}
		})
	}
}

func (w *world) answer(c Choice) Result {
	var i int
	fmt.Sscanf(c.Workload.UID, "pod-%d", &i)
	if w.sick[i] && w.IntN(5) > 0 {
		return Result{Status: 500 + w.IntN(5), Latency: time.Millisecond}
	}
	return Result{Status: 200, Latency: time.Duration(1+w.IntN(20)) * time.Millisecond}
}

// check holds what is true at any time: at most the percentage is ejected, and
// never all. A list that has just shrunk may have more until they are back.
func (w *world) check(t *testing.T, b *Balancer, at string) {
	t.Helper()
	for _, g := range b.groups {
		r := g.roster.Load()
		out := 0
		for _, e := range g.ejected {
			if e.listed {
				out++
			}
			if s := e.circuit.State(); s != circuit.Open && s != circuit.HalfOpen {
				t.Fatalf("%s: %s is counted as ejected, and is %s", at, e.uid, s)
			}
		}
		if r.outlier.Off && out > 0 {
			t.Fatalf("%s: %d are ejected by a breaker that is off", at, out)
		}
		for _, tier := range r.tiers {
			well := uint64(0)
			for i := range tier.members {
				if tier.members[i].endpoint.share.Load() > 0 {
					well += uint64(tier.members[i].workload.Capacity)
				}
			}
			if well != tier.well.Load() {
				t.Fatalf("%s: a tier is counted as %d well, and has %d", at, tier.well.Load(), well)
			}
		}
	}
}

func TestWhatIsKnownOfEndpointsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBalancer()
		for i := range 200 {
			list := many(5)
			for j := range list {
				w := *list[j].Workload
				w.UID = fmt.Sprint(i, "/", j)
				list[j] = view.Endpoint{Workload: &w, Ports: list[j].Ports}
			}
			spread(t, b, ask(list), 5)
			time.Sleep(time.Second)
		}
		g := b.groups[groupKey{web().Key(), 80}]
		if n := len(g.endpoints); n > 2*5+64+5 {
			t.Errorf("%d endpoints are remembered of 5", n)
		}
		for i := range 50 {
			q := ask(many(1))
			q.Service.Hostname = fmt.Sprint("other-", i)
			spread(t, b, q, 1)
			time.Sleep(time.Minute)
		}
		if n := len(b.groups); n > 15 {
			t.Errorf("%d services are remembered, of which 11 were asked for lately", n)
		}
	})
}

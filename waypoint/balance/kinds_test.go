package balance

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestRoundRobinGivesEachItsExactPart(t *testing.T) {
	q := ask(endpoints(pod("a", "10.0.0.1"), pod("b", "10.0.0.2", capacity(3)), pod("c", "10.0.0.3", capacity(6))))
	q.Settings.Balancer.Kind = mesh.BalanceRoundRobin
	if d := cmp.Diff(map[string]int{"a": 100, "b": 300, "c": 600}, spread(t, NewBalancer(), q, 1000)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestRoundRobinInterleaves(t *testing.T) {
	b, q := NewBalancer(), ask(endpoints(pod("a", "10.0.0.1", capacity(50)), pod("b", "10.0.0.2", capacity(50))))
	q.Settings.Balancer.Kind = mesh.BalanceRoundRobin
	for range 20 {
		if got := spread(t, b, q, 10); got["a"] < 3 || got["b"] < 3 {
			t.Fatalf("ten requests in a row went %v", got)
		}
	}
}

// hold picks until n are in flight, and leaves them there.
func hold(t *testing.T, b *Balancer, q Query, n int) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range n {
		c, err := b.Pick(q)
		if err != nil {
			t.Fatal(err)
		}
		count[c.Workload.Name]++
	}
	return count
}

func TestLeastEvensOutWhatIsInFlight(t *testing.T) {
	for name, n := range hold(t, NewBalancer(), ask(many(10)), 1000) {
		if n < 85 || n > 115 {
			t.Errorf("%s has %d of 1000 in flight, want about 100", name, n)
		}
	}
}

func TestLeastPrefersTheFasterAndDoesNotForgetTheSlower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), ask(many(3))
		count := map[string]int{}
		clients(t, b, q, time.Minute, func(c Choice) Result {
			if c.Workload.Name == "pod-1" {
				return Result{Status: 200, Latency: 200 * time.Millisecond}
			}
			return Result{Status: 200, Latency: 5 * time.Millisecond}
		}, func(_ time.Duration, c Choice) { count[c.Workload.Name]++ })
		if slow := count["pod-1"]; slow < 3 || slow > 300 {
			t.Errorf("of 3000 requests %d went to an endpoint that is 40 times slower", slow)
		}
	})
}

func hashing(list ...*mesh.Workload) Query {
	q := ask(endpoints(list...))
	q.Settings.Balancer = mesh.Balancer{Kind: mesh.BalanceHash, Hash: mesh.HashKey{Header: "user"}}
	return q
}

// homes are where keys go.
func homes(t *testing.T, b *Balancer, q Query, keys int) map[int]string {
	t.Helper()
	out := map[int]string{}
	for k := range keys {
		q.Hash = func(h mesh.HashKey) (string, bool) { return fmt.Sprint("user-", k), h.Header == "user" }
		c, err := b.Pick(q)
		if err != nil {
			t.Fatal(err)
		}
		out[k] = c.Workload.Name
		c.Done(Result{Status: 200})
	}
	return out
}

func TestAKeyStaysWithItsEndpoint(t *testing.T) {
	pods := []*mesh.Workload{pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3"), pod("d", "10.0.0.4")}
	b := NewBalancer()
	before := homes(t, b, hashing(pods...), 1000)
	if d := cmp.Diff(before, homes(t, b, hashing(pods...), 1000)); d != "" {
		t.Fatalf("keys moved without a reason:\n%s", d)
	}
	if d := cmp.Diff(before, homes(t, NewBalancer(), hashing(pods...), 1000)); d != "" {
		t.Fatalf("two waypoints do not agree:\n%s", d)
	}
	for k, now := range homes(t, b, hashing(pods[:3]...), 1000) {
		if now != before[k] && before[k] != "d" {
			t.Fatalf("key %d moved from %s to %s when d went", k, before[k], now)
		}
	}
	count := map[string]int{}
	for home := range maps.Values(before) {
		count[home]++
	}
	for name, n := range count {
		if n < 150 || n > 350 {
			t.Errorf("%s is the home of %d of 1000 keys", name, n)
		}
	}
}

func TestAHotKeyIsBounded(t *testing.T) {
	q := hashing(pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3"), pod("d", "10.0.0.4"))
	q.Hash = func(mesh.HashKey) (string, bool) { return "hot", true }
	for name, n := range hold(t, NewBalancer(), q, 1000) {
		if n > 1000/4*13/10 {
			t.Errorf("%s has %d of 1000 requests with one key in flight", name, n)
		}
	}
	if got := hold(t, NewBalancer(), q, 10); len(got) != 1 {
		t.Errorf("ten requests with one key went %v, want one endpoint", got)
	}
}

func TestWithoutTheKeyChanceDecides(t *testing.T) {
	q := hashing(pod("a", "10.0.0.1"), pod("b", "10.0.0.2"))
	q.Hash = func(mesh.HashKey) (string, bool) { return "", false }
	got := spread(t, NewBalancer(), q, 1000)
	about(t, "a", got["a"], 500)
}

func TestKeysReturnToAnEndpointThatIsWellAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), hashing(pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3"))
		before := homes(t, b, q, 200)
		q.Hash = func(mesh.HashKey) (string, bool) { return fmt.Sprint("user-", rand.IntN(200)), true }
		clients(t, b, q, 3*time.Second, failing("b"), func(at time.Duration, c Choice) {
			if at > 2*time.Second && c.Workload.Name == "b" && !c.Probe {
				t.Fatal("a key stayed with an ejected endpoint")
			}
		})
		clients(t, b, q, time.Minute, well, func(time.Duration, Choice) {})
		if d := cmp.Diff(before, homes(t, b, q, 200)); d != "" {
			t.Errorf("keys are elsewhere (-before +after):\n%s", d)
		}
	})
}

func TestANewEndpointWarmsUp(t *testing.T) {
	for name, kind := range map[string]mesh.BalancerKind{"least": mesh.BalanceLeast, "round robin": mesh.BalanceRoundRobin, "random": mesh.BalanceRandom} {
		synctest.Test(t, func(t *testing.T) {
			b := NewBalancer()
			pods := []*mesh.Workload{pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("new", "10.0.0.3")}
			q := ask(endpoints(pods[:2]...))
			q.Settings.Balancer = mesh.Balancer{Kind: kind, Warmup: time.Minute}
			about(t, name+": one of the first endpoints", spread(t, b, q, 1000)["a"], 500)
			q.Endpoints = endpoints(pods...)
			spread(t, b, q, 1)
			cold := spread(t, b, q, 3000)["new"]
			time.Sleep(time.Minute)
			warm := spread(t, b, q, 3000)["new"]
			if cold > 350 || warm < 800 {
				t.Errorf("%s: of 3000 requests a new endpoint got %d, and %d a minute later", name, cold, warm)
			}
		})
	}
}

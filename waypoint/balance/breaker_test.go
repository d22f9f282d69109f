package balance

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/circuit"
)

// clients ask 50 times a second, at even times, for as long as d; answer is
// what an endpoint says. seen gets every choice.
func clients(t *testing.T, b *Balancer, q Query, d time.Duration, answer func(Choice) Result, seen func(time.Duration, Choice)) {
	t.Helper()
	start := time.Now()
	for time.Since(start) < d {
		c, err := b.Pick(q)
		if err != nil {
			t.Fatal(err)
		}
		seen(time.Since(start), c)
		c.Done(answer(c))
		time.Sleep(20 * time.Millisecond)
	}
}

// failing answers 503 for the named pod.
func failing(name string) func(Choice) Result {
	return func(c Choice) Result {
		if c.Workload.Name == name {
			return Result{Status: 503, Latency: time.Millisecond}
		}
		return Result{Status: 200, Latency: 5 * time.Millisecond}
	}
}

func well(Choice) Result { return Result{Status: 200, Latency: 5 * time.Millisecond} }

func stateOf(t *testing.T, b *Balancer, workload string) CircuitStatus {
	t.Helper()
	for _, s := range b.Circuits() {
		if s.Workload == workload {
			return s
		}
	}
	t.Fatalf("no circuit of %s", workload)
	return CircuitStatus{}
}

func TestASickEndpointIsIsolatedWithinTwoSeconds(t *testing.T) {
	for name, kind := range kinds {
		for _, n := range []int{2, 3, 5} {
			synctest.Test(t, func(t *testing.T) {
				b, q := NewBalancer(), ask(many(n))
				q.Settings.Balancer.Kind = kind
				clients(t, b, q, 10*time.Second, well, func(time.Duration, Choice) {})
				last := time.Duration(0)
				clients(t, b, q, 6*time.Second, failing("pod-1"), func(at time.Duration, c Choice) {
					if c.Workload.Name == "pod-1" && !c.Probe {
						last = at
					}
				})
				if last == 0 || last > 2*time.Second {
					t.Errorf("%s, %d endpoints: the last request went to the sick one after %s, want within 2 s", name, n, last)
				}
				if s := stateOf(t, b, "pod-1"); s.Ejections == 0 || s.Cause == "" {
					t.Errorf("%s, %d endpoints: %+v", name, n, s)
				}
			})
		}
	}
}

func TestAnEjectedEndpointGetsOnlyProbesAndComesBackGradually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), ask(many(4))
		clients(t, b, q, 30*time.Second, failing("pod-1"), func(at time.Duration, c Choice) {
			if at > 2*time.Second && c.Workload.Name == "pod-1" && !c.Probe {
				t.Fatalf("after %s a request that is no probe went to the sick endpoint", at)
			}
		})
		var states []string
		var perSecond [60]int
		clients(t, b, q, 60*time.Second, well, func(at time.Duration, c Choice) {
			s := stateOf(t, b, "pod-1")
			if shown := fmt.Sprint(s.State, " ", s.Percent); len(states) == 0 || states[len(states)-1] != shown {
				states = append(states, shown)
			}
			if c.Workload.Name == "pod-1" {
				perSecond[at/time.Second]++
			}
		})
		want := []string{"open 0", "half-open 0", "ramping 5", "ramping 15", "ramping 35", "ramping 60", "closed 100"}
		if fmt.Sprint(states) != fmt.Sprint(want) {
			t.Errorf("the circuit went %v, want %v", states, want)
		}
		t.Log(perSecond)
	})
}

func TestARelapseEjectsLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), ask(many(3))
		var lasted []time.Duration
		for range 5 {
			ill := stateCount(b)
			for stateCount(b) == ill {
				clients(t, b, q, 100*time.Millisecond, failing("pod-1"), func(time.Duration, Choice) {})
			}
			s := stateOf(t, b, "pod-1")
			lasted = append(lasted, s.Until.Sub(s.Since))
			for stateOf(t, b, "pod-1").State != circuit.Ramping {
				clients(t, b, q, 100*time.Millisecond, well, func(time.Duration, Choice) {})
			}
		}
		want := []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second}
		if fmt.Sprint(lasted) != fmt.Sprint(want) {
			t.Errorf("the ejections lasted %v, want %v", lasted, want)
		}
	})
}

func stateCount(b *Balancer) int {
	n := 0
	for _, s := range b.Circuits() {
		n += s.Ejections
	}
	return n
}

func TestNeverIsEveryoneEjected(t *testing.T) {
	for _, c := range []struct {
		sentence string
		pods     int
		percent  int
		want     int
	}{
		{"the last endpoint is never ejected", 1, 100, 0},
		{"of two one may be", 2, 10, 1},
		{"of ten five, by default", 10, 0, 5},
		{"of ten two, if the user says so", 10, 20, 2},
		{"of ten nine, if the user would have all", 10, 100, 9},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, q := NewBalancer(), ask(many(c.pods))
			q.Settings.Outlier.MaxEjectionPercent = c.percent
			q.Settings.Outlier.BaseEjection = time.Hour
			clients(t, b, q, time.Minute, func(Choice) Result { return Result{Status: 500} }, func(time.Duration, Choice) {})
			got := 0
			for _, s := range b.Circuits() {
				if s.State != circuit.Closed {
					got++
				}
			}
			if got != c.want {
				t.Errorf("%s: %d are ejected, want %d", c.sentence, got, c.want)
			}
		})
	}
}

func TestWhereTooFewAreWellEjectionsAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), ask(many(4))
		q.Settings.Outlier = mesh.Outlier{BaseEjection: time.Hour, MinHealthPercent: 80}
		q.Settings.Balancer.Kind = mesh.BalanceRandom
		clients(t, b, q, 10*time.Second, failing("pod-1"), func(time.Duration, Choice) {})
		if s := stateOf(t, b, "pod-1"); s.State == circuit.Closed {
			t.Fatal("the sick endpoint is not ejected")
		}
		about(t, "the ejected endpoint", spread(t, b, q, 4000)["pod-1"], 1000)
	})
}

func TestAnEndpointAtAnotherAddressIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), ask(endpoints(pod("a", "10.0.0.1"), pod("b", "10.0.0.2")))
		q.Settings.Balancer.Kind = mesh.BalanceRandom
		q.Settings.Outlier.BaseEjection = time.Hour
		clients(t, b, q, 3*time.Second, failing("b"), func(time.Duration, Choice) {})
		if s := stateOf(t, b, "b"); s.State != circuit.Open {
			t.Fatalf("b is %s", s.State)
		}
		q.Endpoints = endpoints(pod("a", "10.0.0.1"), pod("b", "10.0.0.9"))
		about(t, "a pod that was made anew", spread(t, b, q, 1000)["b"], 500)
	})
}

func TestABreakerThatIsSwitchedOffLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), ask(many(2))
		q.Settings.Balancer.Kind = mesh.BalanceRandom
		q.Settings.Outlier.BaseEjection = time.Hour
		clients(t, b, q, 3*time.Second, failing("pod-1"), func(time.Duration, Choice) {})
		q.Settings.Outlier = mesh.Outlier{Off: true}
		about(t, "an ejected endpoint", spread(t, b, q, 1000)["pod-1"], 500)
	})
}

func TestAProbeIsARequestThatCanBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), ask(many(2))
		clients(t, b, q, 3*time.Second, failing("pod-1"), func(time.Duration, Choice) {})
		time.Sleep(stateOf(t, b, "pod-1").Until.Sub(time.Now()) + time.Millisecond)
		q.NoProbe = true
		for range 100 {
			if c, _ := b.Pick(q); c.Probe {
				t.Fatal("a request that cannot be repeated was used")
			}
		}
		time.Sleep(probeOverdue)
		if c, _ := b.Pick(q); !c.Probe {
			t.Error("an endpoint that gets no other requests is never asked again")
		}
		q.NoProbe = false
		if c, _ := b.Pick(q); c.Probe {
			t.Error("there is a second probe while the first is not answered")
		}
	})
}

package balance

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// localities makes pods "region/zone#n", so many ready and so many not.
func localities(counts ...any) []*mesh.Workload {
	var pods []*mesh.Workload
	for i := 0; i < len(counts); i += 4 {
		region, zone, ready, all := counts[i].(string), counts[i+1].(string), counts[i+2].(int), counts[i+3].(int)
		for n := range all {
			p := pod(fmt.Sprintf("%s/%s#%d", region, zone, n), fmt.Sprintf("10.0.%d.%d", i, n), place(region, zone))
			p.Unhealthy = n >= ready
			pods = append(pods, p)
		}
	}
	return pods
}

// shares are percentages of what was picked, by region and zone.
func shares(t *testing.T, q Query) map[string]int {
	t.Helper()
	out := map[string]int{}
	b := NewBalancer()
	for range 10000 {
		c, err := b.Pick(q)
		if err != nil {
			t.Fatal(err)
		}
		out[c.Workload.Locality.Region+"/"+c.Workload.Locality.Zone]++
		c.Done(Result{Status: 200})
	}
	for k := range out {
		out[k] = (out[k] + 50) / 100
	}
	return out
}

func TestTheNearestHaveTheTrafficAsLongAsTheyCan(t *testing.T) {
	zones := mesh.LoadBalancing{Preference: []mesh.Scope{mesh.ScopeNetwork, mesh.ScopeRegion, mesh.ScopeZone}, Mode: mesh.BalanceFailover}
	failover := mesh.Balancer{PreferLocal: true, Failover: []mesh.LocalityFailover{{From: "eu", To: "us"}}}
	for _, c := range []struct {
		sentence  string
		pods      []*mesh.Workload
		service   mesh.LoadBalancing
		balancer  mesh.Balancer
		want      map[string]int
		tolerance int
	}{
		{"without a preference all have a part", localities("eu", "a", 1, 1, "eu", "b", 3, 3), mesh.LoadBalancing{}, mesh.Balancer{}, map[string]int{"eu/a": 25, "eu/b": 75}, 5},
		{"with one, one zone has all", localities("eu", "a", 3, 3, "eu", "b", 9, 9), zones, mesh.Balancer{}, map[string]int{"eu/a": 100}, 0},
		{"also while 5 of 7 are ready", localities("eu", "a", 5, 7, "eu", "b", 9, 9), zones, mesh.Balancer{}, map[string]int{"eu/a": 100}, 0},
		{"below, the rest goes to the next zone", localities("eu", "a", 1, 2, "eu", "b", 9, 9), zones, mesh.Balancer{}, map[string]int{"eu/a": 70, "eu/b": 30}, 4},
		{"and on to the next region", localities("eu", "a", 1, 4, "eu", "b", 1, 4, "us", "c", 9, 9), zones, mesh.Balancer{}, map[string]int{"eu/a": 35, "eu/b": 35, "us/c": 30}, 4},
		{"a zone without any ready gives all away", localities("eu", "a", 0, 3, "eu", "b", 2, 2), zones, mesh.Balancer{}, map[string]int{"eu/b": 100}, 0},
		{"if all together are not well enough, by how well they are", localities("eu", "a", 1, 10, "eu", "b", 3, 10), zones, mesh.Balancer{}, map[string]int{"eu/a": 25, "eu/b": 75}, 5},
		{"a strict preference never leaves", localities("eu", "a", 1, 10, "eu", "b", 9, 9), mesh.LoadBalancing{Preference: zones.Preference, Mode: mesh.BalanceStrict}, mesh.Balancer{}, map[string]int{"eu/a": 100}, 0},
		{"a DestinationRule prefers the nearest too", localities("eu", "a", 2, 2, "eu", "b", 2, 2, "us", "c", 2, 2), mesh.LoadBalancing{}, failover, map[string]int{"eu/a": 100}, 0},
		{"then its own region", localities("eu", "a", 0, 2, "eu", "b", 2, 2, "us", "c", 2, 2), mesh.LoadBalancing{}, failover, map[string]int{"eu/b": 100}, 0},
		{"then the region it names", localities("eu", "a", 0, 2, "as", "b", 2, 2, "us", "c", 2, 2), mesh.LoadBalancing{}, failover, map[string]int{"us/c": 100}, 0},
		{"and switches the service's own preference off", localities("eu", "a", 1, 1, "eu", "b", 3, 3), zones, mesh.Balancer{NoLocality: true}, map[string]int{"eu/a": 25, "eu/b": 75}, 5},
	} {
		q := ask(endpoints(c.pods...))
		q.Service.LoadBalancing, q.Settings.Balancer = c.service, c.balancer
		q.Settings.Balancer.Kind = mesh.BalanceRandom
		q.Local = pod("me", "", place("eu", "a"))
		got := shares(t, q)
		for k := range got {
			if _, ok := c.want[k]; !ok {
				t.Errorf("%s: %s got %d %%", c.sentence, k, got[k])
			}
		}
		for k, want := range c.want {
			if d := got[k] - want; d > c.tolerance || d < -c.tolerance {
				t.Errorf("%s: %s got %d %%, want %d %%", c.sentence, k, got[k], want)
			}
		}
	}
}

func TestTrafficLeavesAZoneWhoseEndpointsAreEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := ask(endpoints(localities("eu", "a", 2, 2, "eu", "b", 4, 4)...))
		q.Service.LoadBalancing = mesh.LoadBalancing{Preference: []mesh.Scope{mesh.ScopeZone}, Mode: mesh.BalanceFailover}
		q.Local = pod("me", "", place("eu", "a"))
		q.Settings.Outlier.BaseEjection = time.Hour
		b := NewBalancer()
		clients(t, b, q, 5*time.Second, func(c Choice) Result {
			if c.Workload.Locality.Zone == "a" {
				return Result{Status: 503}
			}
			return well(c)
		}, func(at time.Duration, c Choice) {
			if at > 2*time.Second && c.Workload.Locality.Zone == "a" {
				t.Fatalf("%s was asked after %s", c.Workload.Name, at)
			}
		})
	})
}

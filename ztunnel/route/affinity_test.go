package route

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestAClientKeepsItsEndpoint(t *testing.T) {
	sticky := service("web", "10.96.0.1", func(s *mesh.Service) { s.Affinity = time.Hour })
	web := func(n int, more ...option) *mesh.Workload {
		return pod(fmt.Sprint("web-", n), fmt.Sprint("10.0.1.", n), append(more, serves("web"))...)
	}
	world := []any{sticky, web(1), web(2), web(3)}
	asked := func(world []any, client int, kept string) string {
		src := pod("client", fmt.Sprint("10.0.0.", client))
		d := OutboundAgain(see(world...), src, to("10.96.0.1:80"), rand.IntN, nil, func(mesh.ServiceKey) string { return kept })
		if d.Workload == nil {
			t.Fatalf("client %d: %+v", client, d)
		}
		return d.Workload.UID
	}
	won := map[string]int{}
	for client := range 250 {
		first := asked(world, client, "")
		won[first]++
		for range 3 {
			if again := asked(world, client, ""); again != first {
				t.Fatalf("client %d got %s and then %s", client, first, again)
			}
		}
		larger := append(world[:len(world):len(world)], web(4), web(5))
		if grown := asked(larger, client, first); grown != first {
			t.Fatalf("client %d had %s, and got %s when others came", client, first, grown)
		}
		for i := 1; i <= 3; i++ {
			sick := []any{sticky, web(1), web(2), web(3)}
			sick[i] = web(i, unhealthy)
			got := asked(sick, client, first)
			if ill := web(i).UID; got == ill || first != ill && got != first {
				t.Fatalf("client %d had %s, and got %s while %s is not ready", client, first, got, ill)
			}
		}
	}
	for uid, n := range won {
		if n < 40 {
			t.Errorf("%s is the endpoint of %d of 250 clients", uid, n)
		}
	}
	heavy := []any{sticky, web(1), web(2, capacity(3))}
	n := 0
	for client := range 250 {
		if asked(heavy, client, "") == web(2).UID {
			n++
		}
	}
	if n < 140 || n > 230 {
		t.Errorf("an endpoint of three times the capacity is that of %d of 250 clients", n)
	}
}

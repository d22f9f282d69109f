package bench

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
)

const (
	viewed     = 100_000
	perService = 10
	// viewGoal is in milliseconds.
	viewGoal = 1
	applied  = 2000
)

// viewApply measures how long a node proxy takes to apply a response with one
// changed workload to a mesh of 100,000, and what such a mesh weighs there.
func viewApply(ctx context.Context, cfg *Config) ([]Row, error) {
	const name = "view.apply"
	if !cfg.wants(name) {
		return nil, nil
	}
	cfg.say(name)
	before := heap()
	s := view.NewStore()
	s.Replace(largeMesh())
	weight := heap() - before
	var allocated runtime.MemStats
	runtime.ReadMemStats(&allocated)
	began := allocated.TotalAlloc
	took := make([]float64, 0, applied)
	for i := range applied {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		w := meshedPod(i * (viewed / applied))
		w.Unhealthy = true
		u := xds.Update{Type: xds.TypeAddress, Generation: uint64(i), Upserts: []xds.Resource{{Name: w.UID, Body: wire.MarshalWorkload(w)}}}
		begin := time.Now()
		bad := s.Receive(ctx, u)
		took = append(took, float64(time.Since(begin).Microseconds())/1e3)
		if len(bad) > 0 || !s.View().Workload(w.UID).Unhealthy {
			return nil, fmt.Errorf("%s: change %d was not taken: %v", name, i, bad)
		}
	}
	runtime.ReadMemStats(&allocated)
	slices.Sort(took)
	return []Row{{
		Name: name, Unit: "ms", Value: median(took), Rounds: applied, Better: Lower, Goal: viewGoal,
		Note: fmt.Sprintf("one workload of %d; p99 %.2f ms; the view weighs %.0f MB, and a change leaves %.0f kB to be collected",
			viewed, percentile(took, 0.99), weight/megabyte, float64(allocated.TotalAlloc-began)/applied/1e3),
	}}, nil
}

// heap is what is in use.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func meshedService(i int) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: fmt.Sprint("team-", i/perService%50), Hostname: fmt.Sprintf("app-%d.team.svc.cluster.local", i/perService)}
}

func meshedPod(i int) *mesh.Workload {
	k := meshedService(i)
	return &mesh.Workload{
		UID: fmt.Sprintf("Kubernetes//Pod/%s/app-%d", k.Namespace, i), Name: fmt.Sprint("app-", i), Namespace: k.Namespace,
		TrustDomain: "cluster.local", ServiceAccount: fmt.Sprint("app-", i/perService), ClusterID: "Kubernetes", Node: fmt.Sprint("node-", i/100),
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}, Tunnel: mesh.TunnelHBONE, Capacity: 1,
		CanonicalName: fmt.Sprint("app-", i/perService), CanonicalRevision: "latest", OwnerName: fmt.Sprint("app-", i/perService),
		Services: map[mesh.ServiceKey][]mesh.Port{k: {{Service: 80, Target: 8080}}},
	}
}

func largeMesh() mesh.Model {
	m := mesh.Model{Workloads: map[string]*mesh.Workload{}, Services: map[mesh.ServiceKey]*mesh.Service{}}
	for i := range viewed {
		w := meshedPod(i)
		m.Workloads[w.UID] = w
		if i%perService == 0 {
			k := meshedService(i)
			a := netip.AddrFrom4([4]byte{10, 200 + byte(i>>16), byte(i >> 8), byte(i)})
			m.Services[k] = &mesh.Service{
				Name: fmt.Sprint("app-", i/perService), Namespace: k.Namespace, Hostname: k.Hostname,
				Addresses: []mesh.NetworkPrefix{{Prefix: netip.PrefixFrom(a, 32)}}, Ports: []mesh.Port{{Service: 80, Target: 8080}},
			}
		}
	}
	return m
}

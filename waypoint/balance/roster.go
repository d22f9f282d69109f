package balance

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/waypoint/circuit"
)

// roster is the usable endpoints of a service's port, arranged for choosing.
// It is made once for each list of endpoints that a View brings.
type roster struct {
	source
	tiers []*tier
	ready int // usable endpoints of all tiers
	rules circuit.Rules
	why   Why // there is none, if there is none
	byUID func() map[string]*candidate
}

// source is what a roster was made of.
type source struct {
	endpoints []view.Endpoint
	service   *mesh.Service
	local     *mesh.Workload
	outlier   mesh.Outlier
	balancer  mesh.Balancer
}

// same reports whether a roster need not be made again. Views share what has
// not changed, so the first element's address tells a list.
func (s *source) same(q *Query) bool {
	return len(s.endpoints) == len(q.Endpoints) && (len(q.Endpoints) == 0 || &s.endpoints[0] == &q.Endpoints[0]) &&
		s.service == q.Service && s.local == q.Local && s.outlier == q.Settings.Outlier &&
		s.balancer.NoLocality == q.Settings.Balancer.NoLocality && s.balancer.PreferLocal == q.Settings.Balancer.PreferLocal &&
		slices.Equal(s.balancer.Failover, q.Settings.Balancer.Failover)
}

// candidate is a usable endpoint.
type candidate struct {
	workload *mesh.Workload
	at       netip.AddrPort
	app      mesh.AppProtocol
	endpoint *endpoint
}

// tier is a group of candidates that one locality's rank makes.
type tier struct {
	members []candidate
	// bounds are running sums of capacity; nil if all are equal.
	bounds []uint64
	sum    uint64
	step   uint64 // of round robin, coprime to the sum
	known  uint64 // capacity of all, the unready too
	well   atomic.Uint64
	ring   func() *ring
}

// newRoster arranges the endpoints; state finds what is known of one.
func newRoster(q *Query, state func(*mesh.Workload, netip.AddrPort) *endpoint) *roster {
	r := &roster{source: source{q.Endpoints, q.Service, q.Local, q.Settings.Outlier, q.Settings.Balancer}, rules: circuit.RulesOf(q.Settings.Outlier)}
	byRank := map[int]*tier{}
	var why excuse
	for i := range q.Endpoints {
		e := &q.Endpoints[i]
		rank, ok := r.rank(e.Workload)
		if !ok {
			why[WhyFar] = true
			continue
		}
		c, cause, ok := r.consider(e, q.Port)
		if !ok {
			why[cause] = true
		}
		if !ok && cause != WhyUnready {
			continue
		}
		t := byRank[rank]
		if t == nil {
			t = &tier{}
			byRank[rank] = t
		}
		t.known += uint64(e.Workload.Capacity)
		if ok {
			c.endpoint = state(c.workload, c.at)
			t.members = append(t.members, c)
			r.ready++
		}
	}
	r.why = why.first()
	r.arrange(byRank)
	return r
}

// arrange puts the tiers in order, the nearest first.
func (r *roster) arrange(byRank map[int]*tier) {
	ranks := make([]int, 0, len(byRank))
	for rank := range byRank {
		ranks = append(ranks, rank)
	}
	slices.Sort(ranks)
	slices.Reverse(ranks)
	for _, rank := range ranks {
		byRank[rank].seal()
		r.tiers = append(r.tiers, byRank[rank])
	}
	r.refresh()
	r.byUID = sync.OnceValue(r.index)
}

func (r *roster) index() map[string]*candidate {
	m := make(map[string]*candidate, r.ready)
	for _, t := range r.tiers {
		for i := range t.members {
			m[t.members[i].workload.UID] = &t.members[i]
		}
	}
	return m
}

// refresh recounts what is well, after a circuit has moved.
func (r *roster) refresh() {
	for _, t := range r.tiers {
		well := uint64(0)
		for i := range t.members {
			if t.members[i].endpoint.share.Load() > 0 {
				well += uint64(t.members[i].workload.Capacity)
			}
		}
		t.well.Store(well)
	}
}

// consider makes a candidate of an endpoint, or says why not.
func (r *roster) consider(e *view.Endpoint, port uint16) (candidate, Why, bool) {
	w := e.Workload
	target := r.service.Target(e.Ports, port)
	at, ok := r.address(w)
	switch {
	case target == 0:
		return candidate{}, WhyPort, false
	case w.Capacity == 0:
		return candidate{}, WhyCapacity, false
	case r.local != nil && w.Network != r.local.Network:
		return candidate{}, WhyNetwork, false
	case !ok:
		return candidate{}, WhyAddress, false
	case w.Unhealthy && !r.service.LoadBalancing.AllowUnhealthy:
		return candidate{}, WhyUnready, false
	}
	return candidate{workload: w, at: netip.AddrPortFrom(at, target), app: appOf(r.service, e.Ports, port)}, 0, true
}

// appOf is what a port speaks, by the service or by the endpoint.
func appOf(s *mesh.Service, ports []mesh.Port, port uint16) mesh.AppProtocol {
	if p, _ := s.Port(port); p.App != mesh.AppUnknown {
		return p.App
	}
	for _, p := range ports {
		if p.Service == port {
			return p.App
		}
	}
	return mesh.AppUnknown
}

// address is the first of the service's family; none of a workload that has
// only a name.
func (r *roster) address(w *mesh.Workload) (netip.Addr, bool) {
	for _, a := range w.Addresses {
		a = a.Unmap().WithZone("")
		if f := r.service.Families; f == mesh.FamiliesIPv4 && !a.Is4() || f == mesh.FamiliesIPv6 && a.Is4() {
			continue
		}
		return a, true
	}
	return netip.Addr{}, len(w.Addresses) == 0 && w.Hostname != ""
}

// excuse remembers why endpoints were passed over.
type excuse [WhyCapacity + 1]bool

func (e excuse) first() Why {
	if i := slices.Index(e[:], true); i >= 0 {
		return Why(i)
	}
	return WhyNone
}

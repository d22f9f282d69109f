package balance

import "github.com/ambit-mesh/ambit/internal/mesh"

// nearest is the preference of a DestinationRule's localityLbSetting.
var nearest = mesh.LoadBalancing{Preference: []mesh.Scope{mesh.ScopeRegion, mesh.ScopeZone, mesh.ScopeSubzone}, Mode: mesh.BalanceFailover}

// rank is the order of an endpoint's group, the nearest highest; false rules
// it out. The service's own preference comes before a DestinationRule's, and a
// strict one cannot be switched off.
func (r *roster) rank(w *mesh.Workload) (int, bool) {
	lb := r.service.LoadBalancing
	switch {
	case r.local == nil:
		return 0, true
	case lb.Mode == mesh.BalanceStrict:
		return lb.Rank(r.local, w)
	case r.balancer.NoLocality:
		return 0, true
	case lb.Mode == mesh.BalanceFailover:
		return lb.Rank(r.local, w)
	case !r.balancer.PreferLocal:
		return 0, true
	}
	rank, _ := nearest.Rank(r.local, w)
	if rank > 0 {
		return rank + 1, true
	}
	for _, f := range r.balancer.Failover {
		if f.From == r.local.Locality.Region && f.To == w.Locality.Region {
			return 1, true
		}
	}
	return 0, true
}

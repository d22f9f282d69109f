package mesh

// Rank is how well an endpoint matches the preference of a client; false rules
// it out. A leading network scope is a preference of its own: a match outranks
// every locality, and a mismatch does not end the comparison.
func (lb LoadBalancing) Rank(client, endpoint *Workload) (int, bool) {
	if lb.Mode != BalanceStrict && lb.Mode != BalanceFailover {
		return 0, true
	}
	rank := 0
	for i, scope := range lb.Preference {
		switch {
		case scope.near(client, endpoint):
			rank++
			if i == 0 && scope == ScopeNetwork && lb.Mode == BalanceFailover {
				rank += len(lb.Preference) - 1
			}
		case lb.Mode == BalanceStrict:
			return 0, false
		case i == 0 && scope == ScopeNetwork:
		default:
			return rank, true
		}
	}
	return rank, true
}

// near compares literally: both unset is a match.
func (s Scope) near(a, b *Workload) bool {
	switch s {
	case ScopeRegion:
		return a.Locality.Region == b.Locality.Region
	case ScopeZone:
		return a.Locality.Zone == b.Locality.Zone
	case ScopeSubzone:
		return a.Locality.Subzone == b.Locality.Subzone
	case ScopeNode:
		return a.Node == b.Node
	case ScopeCluster:
		return a.ClusterID == b.ClusterID
	case ScopeNetwork:
		return a.Network == b.Network
	case ScopeUnspecified:
	}
	return false
}

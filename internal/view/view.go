package view

import (
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// View is one state of the mesh. It never changes; a nil View is not valid.
type View struct {
	indexes
	generation    uint64
	configuration uint64
	policyEpoch   uint64
	superseded    chan struct{}
}

// indexes is everything a View can be asked.
type indexes struct {
	workloads  table[string, *mesh.Workload]
	byAddress  table[networkAddr, []*mesh.Workload]
	byAccount  table[account, []*mesh.Workload]
	endpoints  table[mesh.ServiceKey, []Endpoint]
	services   table[mesh.ServiceKey, *mesh.Service]
	byHostname table[string, []*mesh.Service]
	byVIP      table[mesh.NetworkPrefix, []*mesh.Service]
	blocks     []int8 // lengths of the CIDR VIPs present, longest first, IPv6's negative
	policies   table[mesh.PolicyKey, guard]
	byScope    table[string, []guard] // by namespace, "" for global policies
}

type networkAddr struct {
	network string
	addr    netip.Addr
}

type account struct{ namespace, name, serviceAccount string }

// Endpoint is a workload that serves a service, with its ports of it.
type Endpoint struct {
	Workload *mesh.Workload
	Ports    []mesh.Port
}

// Generation grows with every View of a Store.
func (v *View) Generation() uint64 { return v.generation }

// Configuration is the control plane's own count: its newest generation that
// told something here, by the replica that told it. Zero if it does not count
// in public.
func (v *View) Configuration() uint64 { return v.configuration }

// PolicyEpoch changes when any policy did. A connection judged in one View
// has the same verdict in another if both the epoch and the destination's
// *mesh.Workload are the same.
func (v *View) PolicyEpoch() uint64 { return v.policyEpoch }

// Superseded is closed when the Store has a newer View.
func (v *View) Superseded() <-chan struct{} { return v.superseded }

// Workload finds a workload by UID, or nil.
func (v *View) Workload(uid string) *mesh.Workload { return v.workloads.get(uid) }

// WorkloadByAddress finds the workload that an address identifies, or nil:
// host-network workloads are never found. Where several claim an address, a
// pod comes first, then one that speaks HBONE.
func (v *View) WorkloadByAddress(network string, a netip.Addr) *mesh.Workload {
	return first(v.byAddress.get(networkAddr{network, plain(a)}))
}

// WorkloadByAccount finds a pod of this name by its account, or nil. This is
// how a pod that the node agent announced finds its record.
func (v *View) WorkloadByAccount(namespace, name, serviceAccount string) *mesh.Workload {
	return first(v.byAccount.get(account{namespace, name, serviceAccount}))
}

// WorkloadsByAccount are all of that name and account; another cluster may have
// one as well. The caller does not change the slice.
func (v *View) WorkloadsByAccount(namespace, name, serviceAccount string) []*mesh.Workload {
	return v.byAccount.get(account{namespace, name, serviceAccount})
}

// Endpoints are the workloads behind a service, sorted by UID. They are known
// whether or not the service itself is. The caller does not change the slice.
func (v *View) Endpoints(k mesh.ServiceKey) []Endpoint { return v.endpoints.get(k) }

// Workloads lists every workload by UID.
func (v *View) Workloads() []*mesh.Workload {
	return sorted(&v.workloads, func(w *mesh.Workload) string { return w.UID })
}

// Services lists every service by key.
func (v *View) Services() []*mesh.Service {
	return sorted(&v.services, func(s *mesh.Service) string { return s.Key().String() })
}

func sorted[K comparable, T any](t *table[K, T], name func(T) string) []T {
	out := make([]T, 0, t.n)
	for _, x := range t.all {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b T) int { return compare(name(a), name(b)) })
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func first[T any](list []*T) *T {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// plain gives an address its one form.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

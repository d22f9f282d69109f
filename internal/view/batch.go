package view

import (
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// batch is a View under construction. It changes its own copies only.
type batch struct {
	workloads  edit[string, *mesh.Workload]
	byAddress  edit[networkAddr, []*mesh.Workload]
	byAccount  edit[account, []*mesh.Workload]
	endpoints  edit[mesh.ServiceKey, []Endpoint]
	services   edit[mesh.ServiceKey, *mesh.Service]
	byHostname edit[string, []*mesh.Service]
	byVIP      edit[mesh.NetworkPrefix, []*mesh.Service]
	blocks     []int8
	policies   edit[mesh.PolicyKey, guard]
	byScope    edit[string, []guard]

	// ownLists are the endpoint lists that were copied already.
	ownLists map[mesh.ServiceKey]bool
	// changed and policyChanged say whether there is anything to publish.
	changed, policyChanged bool
}

func (v *View) edit() *batch {
	return &batch{
		workloads:  editing(v.workloads),
		byAddress:  editing(v.byAddress),
		byAccount:  editing(v.byAccount),
		endpoints:  editing(v.endpoints),
		services:   editing(v.services),
		byHostname: editing(v.byHostname),
		byVIP:      editing(v.byVIP),
		blocks:     v.blocks,
		policies:   editing(v.policies),
		byScope:    editing(v.byScope),
		ownLists:   map[mesh.ServiceKey]bool{},
	}
}

// view ends the batch.
func (b *batch) view(old *View) *View {
	v := &View{
		indexes: indexes{
			workloads: b.workloads.table, byAddress: b.byAddress.table, byAccount: b.byAccount.table,
			endpoints: b.endpoints.table, services: b.services.table, byHostname: b.byHostname.table,
			byVIP: b.byVIP.table, blocks: b.blocks, policies: b.policies.table, byScope: b.byScope.table,
		},
		generation:    old.generation + 1,
		configuration: old.configuration,
		policyEpoch:   old.policyEpoch,
		superseded:    make(chan struct{}),
	}
	if b.policyChanged {
		v.policyEpoch++
	}
	return v
}

func (b *batch) putWorkload(w *mesh.Workload) {
	b.removeWorkload(w.UID)
	b.changed = true
	b.workloads.put(w.UID, w)
	if w.NetworkMode == mesh.NetworkStandard {
		for _, a := range w.Addresses {
			insert(&b.byAddress, networkAddr{w.Network, plain(a)}, w, byClaim)
		}
	}
	insert(&b.byAccount, account{w.Namespace, w.Name, w.ServiceAccount}, w, byClaim)
	for k, ports := range w.Services {
		list := b.endpointList(k)
		i, _ := findEndpoint(list, w.UID)
		b.endpoints.put(k, slices.Insert(list, i, Endpoint{w, ports}))
	}
}

func (b *batch) removeWorkload(uid string) bool {
	w := b.workloads.get(uid)
	if w == nil {
		return false
	}
	b.changed = true
	b.workloads.del(uid)
	for _, a := range w.Addresses {
		withdraw(&b.byAddress, networkAddr{w.Network, plain(a)}, w)
	}
	withdraw(&b.byAccount, account{w.Namespace, w.Name, w.ServiceAccount}, w)
	for k := range w.Services {
		list := b.endpointList(k)
		if i, ok := findEndpoint(list, uid); ok {
			list = slices.Delete(list, i, i+1)
		}
		if len(list) == 0 {
			b.endpoints.del(k)
			delete(b.ownLists, k)
		} else {
			b.endpoints.put(k, list)
		}
	}
	return true
}

// endpointList is a list that this batch may change in place.
func (b *batch) endpointList(k mesh.ServiceKey) []Endpoint {
	list := b.endpoints.get(k)
	if !b.ownLists[k] {
		list = append(make([]Endpoint, 0, len(list)+1), list...)
		b.ownLists[k] = true
	}
	return list
}

func findEndpoint(list []Endpoint, uid string) (int, bool) {
	return slices.BinarySearchFunc(list, uid, func(e Endpoint, uid string) int { return compare(e.Workload.UID, uid) })
}

func (b *batch) putService(s *mesh.Service) {
	b.removeService(s.Key())
	b.changed = true
	b.services.put(s.Key(), s)
	insert(&b.byHostname, s.Hostname, s, byServiceKey)
	for _, a := range s.Addresses {
		insert(&b.byVIP, a, s, byServiceKey)
		b.blocks = addBlock(b.blocks, a.Prefix)
	}
}

// removeService leaves the lengths of CIDR VIPs: there are few.
func (b *batch) removeService(k mesh.ServiceKey) bool {
	s := b.services.get(k)
	if s == nil {
		return false
	}
	b.changed = true
	b.services.del(k)
	withdraw(&b.byHostname, s.Hostname, s)
	for _, a := range s.Addresses {
		withdraw(&b.byVIP, a, s)
	}
	return true
}

func (b *batch) putPolicy(g guard) {
	b.removePolicy(g.policy.Key)
	b.changed, b.policyChanged = true, true
	b.policies.put(g.policy.Key, g)
	if scope, ok := scopeOf(g.policy); ok {
		list := append(slices.Clone(b.byScope.get(scope)), g)
		slices.SortFunc(list, func(x, y guard) int { return compare(x.policy.Key.String(), y.policy.Key.String()) })
		b.byScope.put(scope, list)
	}
}

func (b *batch) removePolicy(k mesh.PolicyKey) bool {
	g := b.policies.get(k)
	if g.policy == nil {
		return false
	}
	b.changed, b.policyChanged = true, true
	b.policies.del(k)
	if scope, ok := scopeOf(g.policy); ok {
		list := slices.DeleteFunc(slices.Clone(b.byScope.get(scope)), func(o guard) bool { return o.policy.Key == k })
		putOrDelete(&b.byScope, scope, list)
	}
	return true
}

// insert and withdraw copy a list before they change it: Views share it.
func insert[K comparable, T any](e *edit[K, []*T], k K, x *T, order func(a, b *T) int) {
	list := append(slices.Clone(e.get(k)), x)
	slices.SortStableFunc(list, order)
	e.put(k, list)
}

func withdraw[K comparable, T any](e *edit[K, []*T], k K, x *T) {
	list := e.get(k)
	if i := slices.Index(list, x); i >= 0 {
		putOrDelete(e, k, slices.Concat(list[:i], list[i+1:]))
	}
}

func putOrDelete[K comparable, T any](e *edit[K, []T], k K, list []T) {
	if len(list) == 0 {
		e.del(k)
	} else {
		e.put(k, list)
	}
}

// byClaim orders workloads that share an address: pods, then HBONE, then UID.
func byClaim(a, b *mesh.Workload) int {
	rank := func(w *mesh.Workload) int {
		switch {
		case strings.Contains(w.UID, "//Pod/"):
			return 0
		case w.Tunnel == mesh.TunnelHBONE:
			return 1
		}
		return 2
	}
	if d := rank(a) - rank(b); d != 0 {
		return d
	}
	return compare(a.UID, b.UID)
}

func byServiceKey(a, b *mesh.Service) int { return compare(a.Key().String(), b.Key().String()) }

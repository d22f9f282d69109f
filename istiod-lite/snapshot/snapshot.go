// Package snapshot turns the mesh's model into what each kind of client
// holds: named, versioned, marshalled resources, and the steps from one state
// to the next in an order that never opens a gap.
//
// It owns which resources a kind of client gets and how a change is ordered.
// It refuses to know who is connected: istiod-lite/push and internal/xds do.
// Pure. What did not change keeps its *xds.Resource, and is not marshalled
// again.
package snapshot

import (
	"bytes"
	"maps"
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
)

// Ztunnel is what every ztunnel may hold. It is immutable.
type Ztunnel struct {
	// Types are the resources by type URL.
	Types map[string]xds.Resources

	model mesh.Model
}

// ForZtunnels makes the resources of a model. What prev, which may be nil, made
// of the same pointers is taken over, so its cost beyond a comparison of
// pointers is that of what changed.
func ForZtunnels(prev *Ztunnel, m mesh.Model) *Ztunnel {
	if prev == nil {
		prev = &Ztunnel{}
	}
	a := change{old: prev.Types[xds.TypeAddress]}
	follow(&a, prev.model.Workloads, m.Workloads, func(uid string) string { return uid }, workload)
	follow(&a, prev.model.Services, m.Services, mesh.ServiceKey.String, service)
	p := change{old: prev.Types[xds.TypeAuthorization]}
	follow(&p, prev.model.Policies, m.Policies, mesh.PolicyKey.String, policy)
	return &Ztunnel{
		Types: map[string]xds.Resources{xds.TypeAddress: a.result(), xds.TypeAuthorization: p.result()},
		model: m,
	}
}

// change is resources being changed: a copy from the first change on.
type change struct{ old, fresh xds.Resources }

func (c *change) own() xds.Resources {
	if c.fresh == nil {
		c.fresh = maps.Clone(c.old)
	}
	if c.fresh == nil {
		c.fresh = xds.Resources{}
	}
	return c.fresh
}

func (c *change) result() xds.Resources {
	if c.fresh == nil && c.old != nil {
		return c.old
	}
	return c.own()
}

// put keeps the old resource if the new one came out the same; nil is one that
// this kind of client does not get.
func (c *change) put(r *xds.Resource) {
	if r == nil {
		return
	}
	if old := c.old[r.Name]; old != nil && bytes.Equal(old.Body, r.Body) {
		return
	}
	r.Version = wire.Version(r.Body)
	c.own()[r.Name] = r
}

// follow takes resources from one kind's old objects to its new ones.
func follow[K comparable, T any](c *change, old, now map[K]*T, name func(K) string, write func(*T) *xds.Resource) {
	added := 0
	for k, x := range now {
		o, ok := old[k]
		if !ok {
			added++
		}
		if o != x {
			c.put(write(x))
		}
	}
	if len(old)+added == len(now) {
		return // none is gone
	}
	for k := range old {
		if _, ok := now[k]; !ok && (c.old[name(k)] != nil || c.fresh[name(k)] != nil) {
			delete(c.own(), name(k))
		}
	}
}

// policy is nil for one that only waypoints enforce.
func policy(p *mesh.Policy) *xds.Resource {
	if p.Scope == mesh.ScopeTargets {
		return nil
	}
	return &xds.Resource{Name: p.Key.String(), Body: wire.MarshalPolicy(p)}
}

// workload is asked for by its addresses as well, and follows its services and
// its node to clients that ask for single resources.
func workload(w *mesh.Workload) *xds.Resource {
	r := &xds.Resource{Name: w.UID, Body: wire.MarshalWorkload(w)}
	if w.NetworkMode == mesh.NetworkStandard {
		for _, a := range w.Addresses {
			r.Aliases = append(r.Aliases, alias(w.Network, a))
		}
	}
	for k := range w.Services {
		r.Follows = append(r.Follows, k.String())
	}
	if w.Node != "" {
		r.Follows = append(r.Follows, xds.NodeKey(w.Node))
	}
	return r
}

func service(s *mesh.Service) *xds.Resource {
	r := &xds.Resource{Name: s.Key().String(), Body: wire.MarshalService(s)}
	for _, a := range s.Addresses {
		if a.Prefix.IsSingleIP() {
			r.Aliases = append(r.Aliases, alias(a.Network, a.Prefix.Addr()))
		} else {
			r.Aliases = append(r.Aliases, a.Network+"/"+a.Prefix.String())
		}
	}
	return r
}

func alias(network string, a netip.Addr) string { return network + "/" + a.String() }

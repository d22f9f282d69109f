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
// of the same pointers is taken over.
func ForZtunnels(prev *Ztunnel, m mesh.Model) *Ztunnel {
	if prev == nil {
		prev = &Ztunnel{}
	}
	addresses := make(xds.Resources, len(m.Workloads)+len(m.Services))
	old := prev.Types[xds.TypeAddress]
	for uid, w := range m.Workloads {
		addresses[uid] = keep(old[uid], prev.model.Workloads[uid] == w, func() *xds.Resource { return workload(w) })
	}
	for k, s := range m.Services {
		name := k.String()
		addresses[name] = keep(old[name], prev.model.Services[k] == s, func() *xds.Resource { return service(s) })
	}
	policies := make(xds.Resources, len(m.Policies))
	old = prev.Types[xds.TypeAuthorization]
	for k, p := range m.Policies {
		name := k.String()
		policies[name] = keep(old[name], prev.model.Policies[k] == p, func() *xds.Resource {
			return &xds.Resource{Name: name, Body: wire.MarshalPolicy(p)}
		})
	}
	return &Ztunnel{
		Types: map[string]xds.Resources{xds.TypeAddress: addresses, xds.TypeAuthorization: policies},
		model: m,
	}
}

// keep takes the old resource over if it is of the same object, or came out
// the same.
func keep(old *xds.Resource, same bool, fresh func() *xds.Resource) *xds.Resource {
	if same && old != nil {
		return old
	}
	r := fresh()
	if old != nil && bytes.Equal(old.Body, r.Body) {
		return old
	}
	r.Version = wire.Version(r.Body)
	return r
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

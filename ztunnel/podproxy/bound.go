package podproxy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// local waits for the pod's record. Name and account do not suffice: a pod of a
// StatefulSet has those of the one before it, whose record may still stand
// there. Only a record with an address of this namespace is this pod's.
func (p *Proxy) local(ctx context.Context) (*mesh.Workload, error) {
	var other *mesh.Workload
	v, err := p.config.Store.Wait(ctx, func(v *view.View) bool {
		all := p.candidates(v)
		if len(all) > 0 {
			other = all[0]
		}
		return p.own(all) != nil
	})
	switch {
	case err == nil:
		return p.own(p.candidates(v)), nil
	case other != nil:
		return nil, fmt.Errorf("waiting for the record of %s as %s: there is one with the addresses %v, none of which is in the pod's network namespace: %w",
			p.pod, p.pod.ServiceAccount, other.Addresses, err)
	}
	return nil, fmt.Errorf("waiting for the record of %s as %s: %w", p.pod, p.pod.ServiceAccount, err)
}

// record is the pod's in a view; nil if it is not there.
func (p *Proxy) record(v *view.View) *mesh.Workload { return p.own(p.candidates(v)) }

func (p *Proxy) candidates(v *view.View) []*mesh.Workload {
	return v.WorkloadsByAccount(p.pod.Namespace, p.pod.Name, p.pod.ServiceAccount)
}

// own finds the record that is this pod's. The namespace is asked when a record
// is new; one that is not in a namespace of a pod's own takes any.
func (p *Proxy) own(all []*mesh.Workload) *mesh.Workload {
	if len(all) == 0 {
		return nil
	}
	if p.ns == nil {
		return all[0]
	}
	if bound := p.bound.Load(); bound != nil && slices.Contains(all, bound) {
		return bound
	}
	addresses, err := p.ns.Addresses()
	if err != nil {
		p.config.Logger.Warn("reading the pod's addresses", "error", err)
		return nil
	}
	for _, w := range all {
		if slices.ContainsFunc(w.Addresses, func(a netip.Addr) bool { return addresses[a.Unmap()] }) {
			p.bound.Store(w)
			return w
		}
	}
	return nil
}

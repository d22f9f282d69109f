package view

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Service finds a service by key, or nil.
func (v *View) Service(k mesh.ServiceKey) *mesh.Service { return v.services.get(k) }

// ServiceByHostname finds a service by hostname as a client of a namespace
// means it, or nil: of its own namespace, else the canonical one, else the
// first by key.
func (v *View) ServiceByHostname(hostname, clientNamespace string) *mesh.Service {
	return best(v.byHostname.get(hostname), clientNamespace)
}

// ServiceByVIP finds the service behind an address as a client of a namespace
// means it, or nil. An exact address beats a block; between blocks, one of the
// client's namespace beats a longer one.
func (v *View) ServiceByVIP(network string, a netip.Addr, clientNamespace string) *mesh.Service {
	a = plain(a)
	if !a.IsValid() {
		return nil
	}
	exact := mesh.NetworkPrefix{Network: network, Prefix: netip.PrefixFrom(a, a.BitLen())}
	if s := best(v.byVIP.get(exact), clientNamespace); s != nil {
		return s
	}
	var found *mesh.Service
	for _, bits := range v.blocks {
		if (bits < 0) != a.Is6() {
			continue
		}
		p, err := a.Prefix(length(bits))
		if err != nil {
			continue
		}
		s := best(v.byVIP.get(mesh.NetworkPrefix{Network: network, Prefix: p}), clientNamespace)
		if s != nil && s.Namespace == clientNamespace {
			return s
		}
		if found == nil {
			found = s
		}
	}
	return found
}

// best chooses between services of one name or address; the list is in key
// order.
func best(list []*mesh.Service, clientNamespace string) *mesh.Service {
	var chosen *mesh.Service
	for _, s := range list {
		switch {
		case !s.VisibleTo(clientNamespace):
		case s.Namespace == clientNamespace:
			return s
		case chosen == nil || s.Canonical && !chosen.Canonical:
			chosen = s
		}
	}
	return chosen
}

// block packs a prefix's family and length: IPv6 lengths are negative, less
// one so that ::/0 differs from 0.0.0.0/0. /128 never occurs: it is exact.
func block(p netip.Prefix) int8 {
	if p.Addr().Is6() {
		return int8(-1 - p.Bits())
	}
	return int8(p.Bits())
}

func length(b int8) int {
	if b < 0 {
		return -1 - int(b)
	}
	return int(b)
}

// addBlock keeps the lengths longest first.
func addBlock(blocks []int8, p netip.Prefix) []int8 {
	if p.IsSingleIP() || slices.Contains(blocks, block(p)) {
		return blocks
	}
	blocks = append(slices.Clone(blocks), block(p))
	slices.SortFunc(blocks, func(a, b int8) int { return cmp.Compare(length(b), length(a)) })
	return blocks
}

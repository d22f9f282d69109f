// Package probes owns what the mesh puts into a node's own network namespace:
// an nftables table that gives the kubelet's probes a source address by which
// a pod's rules know them, so that probes work under STRICT.
//
// The exemption is narrow: connections from a process of the kubelet's uid on
// the node, to an address and port that an enrolled pod names in its probes or
// lifecycle hooks. A uid alone would let every hostNetwork pod that runs as
// root around the mesh. Exec probes need nothing.
//
// It refuses to read pods (cni/enrol does) and has one caller, cni/members.
package probes

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/ambit-mesh/ambit/cni/nft"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// TableName is the one nftables table (family inet) on a node; its sets have
// the names of upstream's ipsets.
const (
	TableName = "istio-ambient-node"
	setV4     = "istio-inpod-probes-v4"
	setV6     = "istio-inpod-probes-v6"
)

// priority is before kube-proxy's and the CNI plugins' source NAT (100), since
// the first that decides wins.
const priority = 90

// Spec says which probes go around the mesh.
type Spec struct {
	// UID is the kubelet's; 0 is root, as it is nearly everywhere.
	UID uint32
	// Pairs are the probed addresses and ports, in any order.
	Pairs []netip.AddrPort
}

// Table describes the node's nftables table.
func (s Spec) Table() nft.Table {
	v4, v6 := nft.Set{Name: setV4}, nft.Set{Name: setV6, V6: true}
	for _, p := range sorted(s.Pairs) {
		if p.Addr().Is6() {
			v6.Pairs = append(v6.Pairs, p)
		} else {
			v4.Pairs = append(v4.Pairs, p)
		}
	}
	return nft.Table{Name: TableName, Sets: []nft.Set{v4, v6}, Chains: []nft.Chain{{
		Name: "probes", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPostrouting, Priority: priority,
		Rules: []nft.Rule{
			s.rule("kubelet probes of enrolled pods (IPv4)", v4, rules.ProbeSourceV4),
			s.rule("kubelet probes of enrolled pods (IPv6)", v6, rules.ProbeSourceV6),
		},
	}}}
}

func (s Spec) rule(what string, set nft.Set, source netip.Addr) nft.Rule {
	return nft.Rule{What: what, Exprs: nft.Concat(nft.TCP(), nft.UID(s.UID), nft.DstIn(set), nft.SNAT(source))}
}

// sorted is the pairs without doubles and mapped addresses.
func sorted(pairs []netip.AddrPort) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(pairs))
	for _, p := range pairs {
		out = append(out, netip.AddrPortFrom(p.Addr().Unmap(), p.Port()))
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// Apply gives the node exactly the rules of s.
func Apply(node *linux.NetNS, s Spec) error { return nft.Apply(node, s.Table()) }

// Check says in words how the node differs from s; nothing if it does not.
func Check(node *linux.NetNS, s Spec) ([]string, error) { return nft.Check(node, s.Table()) }

// Remove leaves nothing of ours on the node.
func Remove(node *linux.NetNS) error { return nft.Remove(node, TableName) }

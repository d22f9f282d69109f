package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Table is one table of family inet, as it is to be.
type Table struct {
	Name   string
	Sets   []Set
	Chains []Chain
}

// Chain is one base chain with policy accept.
type Chain struct {
	Name     string
	Type     nftables.ChainType
	Hook     *nftables.ChainHook
	Priority int32
	Rules    []Rule
}

// Rule is one rule; its expressions must be complete, with every attribute the
// kernel would fill in, so that comparison holds.
type Rule struct {
	// What is the rule in words, for people who read drift reports and, as the
	// rule's comment, for those who read `nft list ruleset`.
	What  string
	Exprs []expr.Any
}

// Set is a named set of address-and-port pairs of one family.
type Set struct {
	Name string
	// V6 says which family the addresses are of.
	V6    bool
	Pairs []netip.AddrPort
}

// dataType is the set's key: address . port.
func (s Set) dataType() nftables.SetDatatype {
	if s.V6 {
		return nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService)
	}
	return nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
}

// key is one element's bytes; each part is padded to a register of 4 bytes.
func key(p netip.AddrPort) []byte {
	b := p.Addr().AsSlice()
	return append(b, byte(p.Port()>>8), byte(p.Port()), 0, 0)
}

// unkey is the inverse of key.
func unkey(b []byte) (netip.AddrPort, bool) {
	if len(b) != 8 && len(b) != 20 {
		return netip.AddrPort{}, false
	}
	ip, _ := netip.AddrFromSlice(b[:len(b)-4])
	return netip.AddrPortFrom(ip, uint16(b[len(b)-4])<<8|uint16(b[len(b)-3])), true
}

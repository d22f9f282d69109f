package nft

import (
	"bytes"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// rawRule is a rule's expressions as the kernel wrote them, each {name, data}.
type rawRule [][]byte

// dumpRules reads all rules of a table by chain, in order.
func dumpRules(ns *linux.NetNS, table string) (map[string][]rawRule, error) {
	conn, err := dialNetfilter(ns)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table), 0)},
	})
	if err != nil {
		return nil, fmt.Errorf("marshalling a rule dump: %w", err)
	}
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{byte(nftables.TableFamilyINet), unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return nil, fmt.Errorf("reading rules of nftables table %s: %w", table, err)
	}
	rules := map[string][]rawRule{}
	for _, m := range answers {
		chain, rule, err := rawRuleFrom(m)
		if err != nil {
			return nil, fmt.Errorf("reading rules of nftables table %s: %w", table, err)
		}
		rules[chain] = append(rules[chain], rule)
	}
	return rules, nil
}

func rawRuleFrom(m netlink.Message) (chain string, rule rawRule, err error) {
	if len(m.Data) < 4 {
		return "", nil, fmt.Errorf("message of %d bytes", len(m.Data))
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[4:])
	if err != nil {
		return "", nil, err
	}
	for _, a := range attrs {
		switch a.Type &^ unix.NLA_F_NESTED {
		case unix.NFTA_RULE_CHAIN:
			chain = string(bytes.TrimRight(a.Data, "\x00"))
		case unix.NFTA_RULE_EXPRESSIONS:
			list, err := netlink.UnmarshalAttributes(a.Data)
			if err != nil {
				return "", nil, err
			}
			for _, e := range list {
				rule = append(rule, e.Data)
			}
		}
	}
	return chain, rule, nil
}

// asKernel is e as the kernel tells it, and as it is told to it. Two things the
// library cannot say: the flag of a translation that an address is given
// (NF_NAT_RANGE_MAP_IPS), and the direction of a zone.
func asKernel(e expr.Any) ([]byte, error) {
	switch e := e.(type) {
	case *expr.NAT:
		if e.RegAddrMin != 0 {
			return extended("nat", e, netlink.Attribute{Type: unix.NFTA_NAT_FLAGS, Data: []byte{0, 0, 0, 1}})
		}
	case there:
		return extended("ct", e.Ct, netlink.Attribute{Type: unix.NFTA_CT_DIRECTION, Data: []byte{0}})
	}
	return expr.Marshal(byte(nftables.TableFamilyINet), e)
}

// extended is an expression with one attribute more.
func extended(name string, e expr.Any, more netlink.Attribute) ([]byte, error) {
	data, err := expr.MarshalExprData(byte(nftables.TableFamilyINet), e)
	if err != nil {
		return nil, err
	}
	attr, err := netlink.MarshalAttributes([]netlink.Attribute{more})
	if err != nil {
		return nil, err
	}
	return netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: append([]byte(name), 0)},
		{Type: unix.NLA_F_NESTED | unix.NFTA_EXPR_DATA, Data: append(data, attr...)},
	})
}

// sameAttributes compares attributes that we would send with the kernel's. An
// attribute that is all zero is as good as none: the kernel writes out some
// defaults that we leave away.
func sameAttributes(want, have []byte) (bool, error) {
	w, err := netlink.UnmarshalAttributes(want)
	if err != nil {
		return false, fmt.Errorf("decoding own expression: %w", err)
	}
	h, err := netlink.UnmarshalAttributes(have)
	if err != nil {
		return false, nil // not of the form of ours, so another
	}
	left := map[uint16][]byte{}
	for _, a := range h {
		left[a.Type&^unix.NLA_F_NESTED] = a.Data
	}
	for _, a := range w {
		kind := a.Type &^ unix.NLA_F_NESTED
		other := left[kind]
		delete(left, kind)
		if a.Type&unix.NLA_F_NESTED != 0 {
			if same, err := sameAttributes(a.Data, other); err != nil || !same {
				return false, err
			}
			continue
		}
		if !bytes.Equal(a.Data, other) && !(zero(a.Data) && zero(other)) {
			return false, nil
		}
	}
	for _, data := range left {
		if !zero(data) {
			return false, nil
		}
	}
	return true, nil
}

// withSetIDs gives lookups the transaction's id of a set made in it. Only the
// copy has it: the kernel does not tell it back.
func withSetIDs(exprs []expr.Any, sets map[string]*nftables.Set) []expr.Any {
	out := make([]expr.Any, len(exprs))
	for i, e := range exprs {
		if l, ok := e.(*expr.Lookup); ok && sets[l.SetName] != nil {
			copied := *l
			copied.SetID = sets[l.SetName].ID
			e = &copied
		}
		out[i] = e
	}
	return out
}

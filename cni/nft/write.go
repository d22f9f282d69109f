package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// The library's own way to send rules has no place for what asKernel adds, so
// tables without sets are written here. Those with sets have no such rules.

// write makes the kernel's tables equal to the given in one transaction.
func write(ns *linux.NetNS, tables []Table) error {
	b := batch{}
	b.add(unix.NFNL_MSG_BATCH_BEGIN, 0, nil)
	for _, t := range tables {
		if err := b.table(t); err != nil {
			return err
		}
	}
	b[len(b)-1].Header.Flags |= netlink.Acknowledge // of the last one; errors are told of any
	b.add(unix.NFNL_MSG_BATCH_END, 0, nil)
	return b.send(ns)
}

// batch is messages of which the kernel does all or nothing.
type batch []netlink.Message

const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8

func (b *batch) add(kind, flags int, attributes []byte) {
	header := []byte{byte(nftables.TableFamilyINet), unix.NFNETLINK_V0, 0, 0} // struct nfgenmsg
	if kind&^0xff == 0 {
		header = []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	}
	*b = append(*b, netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.HeaderFlags(flags)},
		Data:   append(header, attributes...),
	})
}

// table replaces one.
func (b *batch) table(t Table) error {
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_TABLE_NAME, Data: text(t.Name)}})
	if err != nil {
		return fmt.Errorf("marshalling table %s: %w", t.Name, err)
	}
	// Adding first makes the removal succeed where there was none.
	b.add(subsystem|unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, name)
	b.add(subsystem|unix.NFT_MSG_DELTABLE, 0, name)
	b.add(subsystem|unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, name)
	for _, c := range t.Chains {
		if err := b.chain(t.Name, c); err != nil {
			return fmt.Errorf("marshalling chain %s of table %s: %w", c.Name, t.Name, err)
		}
	}
	return nil
}

func (b *batch) chain(table string, c Chain) error {
	hook, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_HOOK_HOOKNUM, Data: number(uint32(*c.Hook))},
		{Type: unix.NFTA_HOOK_PRIORITY, Data: number(uint32(c.Priority))},
	})
	if err != nil {
		return err
	}
	chain, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_CHAIN_TABLE, Data: text(table)},
		{Type: unix.NFTA_CHAIN_NAME, Data: text(c.Name)},
		{Type: unix.NLA_F_NESTED | unix.NFTA_CHAIN_HOOK, Data: hook},
		{Type: unix.NFTA_CHAIN_POLICY, Data: number(uint32(nftables.ChainPolicyAccept))},
		{Type: unix.NFTA_CHAIN_TYPE, Data: text(string(c.Type))},
	})
	if err != nil {
		return err
	}
	b.add(subsystem|unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, chain)
	for _, r := range c.Rules {
		if err := b.rule(table, c.Name, r); err != nil {
			return fmt.Errorf("rule %q: %w", r.What, err)
		}
	}
	return nil
}

func (b *batch) rule(table, chain string, r Rule) error {
	list := make([]netlink.Attribute, len(r.Exprs))
	for i, e := range r.Exprs {
		data, err := asKernel(e)
		if err != nil {
			return err
		}
		list[i] = netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: data}
	}
	expressions, err := netlink.MarshalAttributes(list)
	if err != nil {
		return err
	}
	rule, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: text(table)},
		{Type: unix.NFTA_RULE_CHAIN, Data: text(chain)},
		{Type: unix.NLA_F_NESTED | unix.NFTA_RULE_EXPRESSIONS, Data: expressions},
		{Type: unix.NFTA_RULE_USERDATA, Data: userdata.AppendString(nil, userdata.TypeComment, r.What)},
	})
	if err != nil {
		return err
	}
	b.add(subsystem|unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, rule)
	return nil
}

// send waits for the kernel's answer.
func (b batch) send(ns *linux.NetNS) error {
	conn, err := dialNetfilter(ns)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.SendMessages(b); err != nil {
		return fmt.Errorf("writing nftables tables: %w", err)
	}
	if _, err := conn.Receive(); err != nil {
		return fmt.Errorf("writing nftables tables: %w", err)
	}
	return nil
}

// dialNetfilter connects from inside ns. The socket stays there.
func dialNetfilter(ns *linux.NetNS) (conn *netlink.Conn, err error) {
	err = ns.Do(func() (err error) {
		conn, err = netlink.Dial(unix.NETLINK_NETFILTER, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	return conn, nil
}

func text(s string) []byte { return append([]byte(s), 0) }

func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

package rules_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	raw "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/nft"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// within waits for a condition.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(netnstest.Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", netnstest.Patience, what)
		}
	}
}

// everything is a text of all nftables objects, ip rules and routes of ns.
func everything(t *testing.T, ns *linux.NetNS) string {
	t.Helper()
	var b strings.Builder
	netnstest.Do(t, ns, func() error {
		c := &nftables.Conn{}
		tables, err := c.ListTables()
		if err != nil {
			return err
		}
		for _, t := range tables {
			fmt.Fprintf(&b, "table %s\n", t.Name)
		}
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			all, err := netlink.RuleList(family)
			if err != nil {
				return err
			}
			for _, r := range all {
				fmt.Fprintf(&b, "rule %v\n", r)
			}
			routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				fmt.Fprintf(&b, "route %v\n", r)
			}
		}
		return nil
	})
	return b.String()
}

// damage is one thing done to a pod's rules behind the agent's back.
type damage struct {
	what string
	do   func(c *nftables.Conn, table *nftables.Table) error
}

// hurt does one damage.
func hurt(t *testing.T, ns *linux.NetNS, d damage) {
	t.Helper()
	netnstest.Do(t, ns, func() error {
		c := &nftables.Conn{}
		if err := d.do(c, &nftables.Table{Name: rules.TableName, Family: nftables.TableFamilyINet}); err != nil {
			return fmt.Errorf("%s: %w", d.what, err)
		}
		if err := c.Flush(); err != nil {
			return fmt.Errorf("%s: %w", d.what, err)
		}
		return nil
	})
}

// ruleDamages deletes and changes each rule that the kernel has in a table.
func ruleDamages(t *testing.T, ns *linux.NetNS, table string) []damage {
	t.Helper()
	var all []damage
	netnstest.Do(t, ns, func() error {
		c := &nftables.Conn{}
		chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
		if err != nil {
			return err
		}
		for _, chain := range chains {
			if chain.Table.Name != table {
				continue
			}
			found, err := handles(chain)
			if err != nil {
				return err
			}
			for i := range found {
				all = append(all, damage{fmt.Sprintf("rule %d of %s deleted", i, chain.Name), func(c *nftables.Conn, _ *nftables.Table) error {
					now, err := handles(chain)
					if err != nil {
						return err
					}
					return c.DelRule(&nftables.Rule{Table: chain.Table, Chain: chain, Handle: now[i]})
				}})
			}
			if len(found) > 0 {
				all = append(all, damage{"chain " + chain.Name + " flushed", func(c *nftables.Conn, _ *nftables.Table) error {
					c.FlushChain(chain)
					return nil
				}})
			}
			all = append(all,
				damage{"chain " + chain.Name + " deleted", func(c *nftables.Conn, _ *nftables.Table) error {
					c.FlushChain(chain)
					c.DelChain(chain)
					return nil
				}},
				damage{"a rule put before those of " + chain.Name, func(c *nftables.Conn, _ *nftables.Table) error {
					c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
					return nil
				}},
			)
		}
		return nil
	})
	return all
}

// handles are those of a chain's rules here, in order. The library cannot read
// all of these rules.
func handles(chain *nftables.Chain) ([]uint64, error) {
	conn, err := raw.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	attrs, err := raw.MarshalAttributes([]raw.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(chain.Table.Name + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(chain.Name + "\x00")},
	})
	if err != nil {
		return nil, err
	}
	answers, err := conn.Execute(raw.Message{
		Header: raw.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: raw.Request | raw.Dump},
		Data:   append([]byte{byte(chain.Table.Family), unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return nil, err
	}
	var all []uint64
	for _, m := range answers {
		rule, err := raw.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			return nil, err
		}
		for _, a := range rule {
			if a.Type == unix.NFTA_RULE_HANDLE {
				all = append(all, binary.BigEndian.Uint64(a.Data))
			}
		}
	}
	return all, nil
}

func otherDamages() []damage {
	return []damage{
		{"the table deleted", func(c *nftables.Conn, table *nftables.Table) error {
			c.DelTable(table)
			return nil
		}},
		{"a chain added", func(c *nftables.Conn, table *nftables.Table) error {
			c.AddChain(&nftables.Chain{Table: table, Name: "evil", Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityMangle})
			return nil
		}},
		{"the direction of a mark set turned round", func(c *nftables.Conn, table *nftables.Table) error {
			// What the library's own decoder would not see.
			chain := &nftables.Chain{Name: "mark-inbound", Table: table}
			now, err := c.GetRules(table, chain)
			if err != nil {
				return err
			}
			last := now[0].Exprs[len(now[0].Exprs)-1].(*expr.Ct)
			last.SourceRegister, last.Register = false, 1
			c.ReplaceRule(now[0])
			return nil
		}},
		{"a redirect to another port", func(c *nftables.Conn, table *nftables.Table) error {
			chain := &nftables.Chain{Name: "capture-outbound", Table: table}
			now, err := c.GetRules(table, chain)
			if err != nil {
				return err
			}
			for _, e := range now[1].Exprs {
				if port, ok := e.(*expr.Immediate); ok {
					port.Data = []byte{0, 99}
				}
			}
			c.ReplaceRule(now[1])
			return nil
		}},
		{"the return rule deleted", func(*nftables.Conn, *nftables.Table) error { return delRules(unix.AF_INET, 0x111) }},
		{"the IPv6 return rule deleted", func(*nftables.Conn, *nftables.Table) error { return delRules(unix.AF_INET6, 0x111) }},
		{"the return route deleted", func(*nftables.Conn, *nftables.Table) error { return delRoutes(unix.AF_INET) }},
		{"the IPv6 return route deleted", func(*nftables.Conn, *nftables.Table) error { return delRoutes(unix.AF_INET6) }},
	}
}

// guardDamages leave nothing that closes until it is mended.
func guardDamages() []damage {
	return []damage{
		{"the guard deleted", func(c *nftables.Conn, _ *nftables.Table) error {
			c.DelTable(&nftables.Table{Name: rules.GuardName, Family: nftables.TableFamilyINet})
			return nil
		}},
		{"everything deleted", func(c *nftables.Conn, _ *nftables.Table) error {
			c.FlushRuleset()
			return nil
		}},
	}
}

// datagramDamages are those of a pod that opted in to UDP alone.
func datagramDamages() []damage {
	return []damage{
		{"the rule of datagrams deleted", func(*nftables.Conn, *nftables.Table) error { return delRules(unix.AF_INET, 0x112) }},
		{"the IPv6 rule of datagrams deleted", func(*nftables.Conn, *nftables.Table) error { return delRules(unix.AF_INET6, 0x112) }},
		{"datagrams given to another port", func(c *nftables.Conn, table *nftables.Table) error {
			// The library cannot read the rule that it replaces.
			now, err := c.GetRules(table, &nftables.Chain{Name: "capture-datagrams", Table: table})
			if err != nil {
				return err
			}
			now[0].Exprs = slices.Concat(nft.In("lo"), nft.UDP(), nft.Mark(0x112), nft.Proxy(netip.MustParseAddrPort("127.0.0.1:99")), nft.Accept())
			c.ReplaceRule(now[0])
			return nil
		}},
	}
}

func delRules(family int, mark uint32) error {
	all, err := netlink.RuleList(family)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Table == 100 && r.Mark == mark {
			r.Family = family
			return netlink.RuleDel(&r)
		}
	}
	return errors.New("no such rule")
}

func delRoutes(family int) error {
	all, err := netlink.RouteListFiltered(family, &netlink.Route{Table: 100}, netlink.RT_FILTER_TABLE)
	if err != nil || len(all) == 0 {
		return errors.Join(err, errors.New("no such route"))
	}
	return netlink.RouteDel(&all[0])
}

func TestEveryDamageIsNoticedAndMended(t *testing.T) {
	for _, mode := range []struct {
		name string
		spec rules.Spec
		more []damage
		most int
	}{
		{"connections", rules.Spec{DNS: true}, nil, 40},
		{"datagrams too", rules.Spec{DNS: true, UDP: true}, datagramDamages(), 60},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			apply(t, ns, mode.spec)
			damages := slices.Concat(ruleDamages(t, ns, rules.TableName), ruleDamages(t, ns, rules.GuardName), otherDamages(), guardDamages(), mode.more)
			if len(damages) < mode.most {
				t.Fatalf("only %d kinds of damage: the rules are not being read", len(damages))
			}
			for _, d := range damages {
				hurt(t, ns, d)
				if drift := check(t, ns, mode.spec); len(drift) == 0 {
					t.Errorf("%s: not noticed", d.what)
				}
				apply(t, ns, mode.spec)
			}
		})
	}
}

func TestOneModesRulesAreNotAnothers(t *testing.T) {
	ns := netnstest.New(t)
	modes := []rules.Spec{{}, {BypassInbound: true}, {DNS: true}, {UDP: true}, {BypassInbound: true, UDP: true}, {DNS: true, UDP: true}, {Draining: true}}
	for _, is := range modes {
		apply(t, ns, is)
		for _, want := range modes {
			if drift := check(t, ns, want); (len(drift) == 0) != (is == want) {
				t.Errorf("kernel has %+v, checked for %+v: drift %q", is, want, drift)
			}
		}
	}
}

package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// Apply makes the kernel's tables of those names equal to the given in one
// transaction: packets meet either the old rules or the new, and connections
// that the old rules translated stay translated if the new tables still have
// chains of type nat and a rule that needs connection tracking.
func Apply(ns *linux.NetNS, tables ...Table) error {
	if !slices.ContainsFunc(tables, func(t Table) bool { return len(t.Sets) > 0 }) {
		return write(ns, tables)
	}
	conn, err := open(ns)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	for _, t := range tables {
		if err := replace(conn, t); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("writing nftables tables: %w", err)
	}
	return nil
}

func replace(conn *nftables.Conn, t Table) error {
	// Adding first makes the removal succeed where there was none.
	table := conn.AddTable(inet(t.Name))
	conn.DelTable(table)
	conn.AddTable(table)
	sets, err := addSets(conn, table, t.Sets)
	if err != nil {
		return err
	}
	for _, c := range t.Chains {
		addChain(conn, table, c, sets)
	}
	return nil
}

func addSets(conn *nftables.Conn, table *nftables.Table, sets []Set) (map[string]*nftables.Set, error) {
	made := map[string]*nftables.Set{}
	for _, s := range sets {
		set := &nftables.Set{Table: table, Name: s.Name, KeyType: s.dataType(), Concatenation: true}
		elements := make([]nftables.SetElement, len(s.Pairs))
		for i, p := range s.Pairs {
			elements[i] = nftables.SetElement{Key: key(p)}
		}
		if err := conn.AddSet(set, elements); err != nil {
			return nil, fmt.Errorf("describing nftables set %s: %w", s.Name, err)
		}
		made[s.Name] = set
	}
	return made, nil
}

func addChain(conn *nftables.Conn, table *nftables.Table, c Chain, sets map[string]*nftables.Set) {
	policy := nftables.ChainPolicyAccept
	priority := nftables.ChainPriority(c.Priority)
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: c.Name, Type: c.Type, Hooknum: c.Hook, Priority: &priority, Policy: &policy,
	})
	for _, r := range c.Rules {
		conn.AddRule(&nftables.Rule{
			Table: table, Chain: chain, Exprs: withSetIDs(r.Exprs, sets),
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.What),
		})
	}
}

// Remove removes the table; one that does not exist is no error.
func Remove(ns *linux.NetNS, name string) error {
	conn, err := open(ns)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	conn.DelTable(inet(name))
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing nftables table %s: %w", name, err)
	}
	return nil
}

// Exists reports whether the kernel has a table of that name.
func Exists(ns *linux.NetNS, name string) (bool, error) {
	conn, err := open(ns)
	if err != nil {
		return false, err
	}
	defer conn.CloseLasting()
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("listing nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == name {
			return true, nil
		}
	}
	return false, nil
}

func inet(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}

// open connects to the kernel's nftables of ns. The socket is made inside and
// stays there.
func open(ns *linux.NetNS) (*nftables.Conn, error) {
	var conn *nftables.Conn
	err := ns.Do(func() (err error) {
		conn, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	return conn, nil
}

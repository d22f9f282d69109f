package nft

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// Check says in words how the kernel's table differs from t; nothing if it
// does not.
func Check(ns *linux.NetNS, t Table) ([]string, error) {
	have, err := Exists(ns, t.Name)
	if err != nil {
		return nil, err
	}
	if !have {
		return []string{fmt.Sprintf("table %s is missing", t.Name)}, nil
	}
	conn, err := open(ns)
	if err != nil {
		return nil, err
	}
	defer conn.CloseLasting()
	var drift []string
	chains, err := checkChains(conn, t)
	if err != nil {
		return nil, err
	}
	drift = append(drift, chains...)
	rules, err := checkRules(ns, t)
	if err != nil {
		return nil, err
	}
	drift = append(drift, rules...)
	for _, s := range t.Sets {
		d, err := checkSet(conn, t.Name, s)
		if err != nil {
			return nil, err
		}
		drift = append(drift, d...)
	}
	return drift, nil
}

func checkChains(conn *nftables.Conn, t Table) ([]string, error) {
	all, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("listing nftables chains: %w", err)
	}
	have := map[string]*nftables.Chain{}
	for _, c := range all {
		if c.Table.Name == t.Name {
			have[c.Name] = c
		}
	}
	var drift []string
	for _, c := range t.Chains {
		h := have[c.Name]
		delete(have, c.Name)
		if h == nil {
			drift = append(drift, fmt.Sprintf("chain %s is missing", c.Name))
		} else if !sameChain(c, h) {
			drift = append(drift, fmt.Sprintf("chain %s hangs elsewhere or has another policy", c.Name))
		}
	}
	for name := range have {
		drift = append(drift, fmt.Sprintf("chain %s is not ours", name))
	}
	slices.Sort(drift)
	return drift, nil
}

func sameChain(c Chain, h *nftables.Chain) bool {
	return h.Type == c.Type && h.Hooknum != nil && *h.Hooknum == *c.Hook &&
		h.Priority != nil && int32(*h.Priority) == c.Priority &&
		h.Policy != nil && *h.Policy == nftables.ChainPolicyAccept
}

func checkRules(ns *linux.NetNS, t Table) ([]string, error) {
	have, err := dumpRules(ns, t.Name)
	if err != nil {
		return nil, err
	}
	var drift []string
	for _, c := range t.Chains {
		d, err := checkChainRules(c, have[c.Name])
		if err != nil {
			return nil, err
		}
		drift = append(drift, d...)
	}
	return drift, nil
}

// checkChainRules compares rules place by place. If all of the kernel's rules
// are ours but some are missing, it names these.
func checkChainRules(c Chain, have []rawRule) ([]string, error) {
	var missing []string
	next := 0
	for _, r := range c.Rules {
		same := false
		if next < len(have) {
			var err error
			if same, err = sameRule(r, have[next]); err != nil {
				return nil, err
			}
		}
		if same {
			next++
		} else {
			missing = append(missing, fmt.Sprintf("chain %s: rule %q is missing or changed", c.Name, r.What))
		}
	}
	if next < len(have) {
		missing = append(missing, fmt.Sprintf("chain %s has %d rules that are not ours", c.Name, len(have)-next))
	}
	return missing, nil
}

func checkSet(conn *nftables.Conn, table string, s Set) ([]string, error) {
	set, err := conn.GetSetByName(inet(table), s.Name)
	if err != nil {
		return []string{fmt.Sprintf("set %s is missing", s.Name)}, nil
	}
	elements, err := conn.GetSetElements(set)
	if err != nil {
		return nil, fmt.Errorf("reading nftables set %s: %w", s.Name, err)
	}
	have := map[netip.AddrPort]bool{}
	for _, e := range elements {
		if p, ok := unkey(e.Key); ok {
			have[p] = true
		}
	}
	var drift []string
	for _, p := range s.Pairs {
		if !have[p] {
			drift = append(drift, fmt.Sprintf("set %s: %s is missing", s.Name, p))
		}
		delete(have, p)
	}
	for p := range have {
		drift = append(drift, fmt.Sprintf("set %s: %s does not belong there", s.Name, p))
	}
	slices.Sort(drift)
	return drift, nil
}

// sameRule compares what we would send with what the kernel holds.
func sameRule(want Rule, have rawRule) (bool, error) {
	if len(want.Exprs) != len(have) {
		return false, nil
	}
	for i, e := range want.Exprs {
		b, err := asKernel(e)
		if err != nil {
			return false, fmt.Errorf("marshalling rule %q: %w", want.What, err)
		}
		if same, err := sameAttributes(b, have[i]); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// zero reports whether b is nothing but zero bytes.
func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// The oracle is a second evaluator, written from the text of the rules without
// looking at the first: it expands every rule into text, and reads blocks bit
// by bit. Thousands of random states must agree.

func oracle(s Set, c Connection) bool {
	denied, anyAllow, allowed := len(s.Unknown) > 0, false, false
	for _, p := range s.Policies {
		if p.DryRun {
			continue
		}
		hit := false
		for _, r := range p.Rules {
			all := true
			for _, cl := range r.Clauses {
				one := len(cl.Matches) == 0
				for _, m := range cl.Matches {
					one = one || oracleMatch(m, c)
				}
				all = all && one
			}
			hit = hit || all
		}
		switch {
		case p.Action == mesh.ActionDeny && hit:
			denied = true
		case p.Action == mesh.ActionAllow:
			anyAllow, allowed = true, allowed || hit
		}
	}
	return !denied && (!anyAllow || allowed)
}

func oracleMatch(m mesh.Match, c Connection) bool {
	id := c.Source.String()
	conditions := 0
	ok := true
	demand := func(listed int, positive bool, hits int) {
		if listed > 0 {
			conditions++
			ok = ok && (hits > 0) == positive
		}
	}
	demand(len(m.Principals), true, oracleStrings(m.Principals, strings.TrimPrefix(id, "spiffe://"), id != ""))
	demand(len(m.NotPrincipals), false, oracleStrings(m.NotPrincipals, strings.TrimPrefix(id, "spiffe://"), id != ""))
	demand(len(m.Namespaces), true, oracleStrings(m.Namespaces, c.Source.Namespace, true))
	demand(len(m.NotNamespaces), false, oracleStrings(m.NotNamespaces, c.Source.Namespace, true))
	demand(len(m.ServiceAccounts), true, oracleAccounts(m.ServiceAccounts, id))
	demand(len(m.NotServiceAccounts), false, oracleAccounts(m.NotServiceAccounts, id))
	demand(len(m.SourceIPs), true, oracleBlocks(m.SourceIPs, c.SourceIP))
	demand(len(m.NotSourceIPs), false, oracleBlocks(m.NotSourceIPs, c.SourceIP))
	demand(len(m.DestinationIPs), true, oracleBlocks(m.DestinationIPs, c.Destination.Addr()))
	demand(len(m.NotDestinationIPs), false, oracleBlocks(m.NotDestinationIPs, c.Destination.Addr()))
	demand(len(m.DestinationPorts), true, oraclePorts(m.DestinationPorts, c))
	demand(len(m.NotDestinationPorts), false, oraclePorts(m.NotDestinationPorts, c))
	return ok && conditions > 0
}

func oracleStrings(list []mesh.StringMatch, text string, comparable bool) (hits int) {
	for _, m := range list {
		form := map[mesh.StringOp]bool{
			mesh.OpExact:    text == m.Value,
			mesh.OpPrefix:   len(text) >= len(m.Value) && text[:min(len(text), len(m.Value))] == m.Value,
			mesh.OpSuffix:   len(text) >= len(m.Value) && text[max(0, len(text)-len(m.Value)):] == m.Value,
			mesh.OpPresence: len(text) > 0,
		}
		if comparable && form[m.Op] {
			hits++
		}
	}
	return hits
}

func oracleAccounts(list []mesh.ServiceAccount, id string) (hits int) {
	for _, a := range list {
		if id != "" && strings.HasSuffix(id, fmt.Sprintf("/ns/%s/sa/%s", a.Namespace, a.Name)) {
			hits++
		}
	}
	return hits
}

func oracleBlocks(list []netip.Prefix, a netip.Addr) (hits int) {
	bits := func(a netip.Addr) (out string) {
		for _, b := range a.AsSlice() {
			out += fmt.Sprintf("%08b", b)
		}
		return out
	}
	for _, p := range list {
		if p.Addr().Is4() == a.Is4() && strings.HasPrefix(bits(a), bits(p.Addr())[:p.Bits()]) {
			hits++
		}
	}
	return hits
}

func oraclePorts(list []uint16, c Connection) (hits int) {
	for _, p := range list {
		if fmt.Sprint(p) == fmt.Sprint(c.Destination.Port()) {
			hits++
		}
	}
	return hits
}

// world draws from small alphabets, so that matches are about as frequent as
// misses.
type world struct{ *rand.Rand }

func (w world) pick(texts ...string) string { return texts[w.IntN(len(texts))] }

func draw[T any](w world, one func() T) []T {
	var out []T
	for w.IntN(3) == 0 {
		out = append(out, one())
	}
	return out
}

func (w world) id() spiffe.ID {
	if w.IntN(4) == 0 {
		return spiffe.ID{}
	}
	return spiffe.ID{TrustDomain: w.pick("td", "cluster.local"), Namespace: w.pick("a", "ab", "b"), ServiceAccount: w.pick("x", "y")}
}

func (w world) text() mesh.StringMatch {
	return mesh.StringMatch{
		Op:    mesh.StringOp(w.IntN(4)),
		Value: w.pick("", "a", "ab", "b", "td/ns/a/sa/x", "td/", "td/ns/a", "/sa/x", "x", "cluster.local/ns/b/sa/y"),
	}
}

func (w world) block() netip.Prefix {
	p, _ := w.addr().Prefix(w.IntN(33))
	return p
}

func (w world) addr() netip.Addr {
	if w.IntN(4) == 0 {
		return netip.MustParseAddr(w.pick("fd00::1", "fd00::2", "::1"))
	}
	return netip.AddrFrom4([4]byte{10, byte(w.IntN(2)), 0, byte(w.IntN(3))})
}

func (w world) match() mesh.Match {
	account := func() mesh.ServiceAccount {
		return mesh.ServiceAccount{Namespace: w.pick("a", "b"), Name: w.pick("x", "y")}
	}
	port := func() uint16 { return uint16(80 + w.IntN(3)) }
	m := mesh.Match{}
	for range w.IntN(3) {
		switch w.IntN(6) {
		case 0:
			m.Principals, m.NotPrincipals = draw(w, w.text), draw(w, w.text)
		case 1:
			m.Namespaces, m.NotNamespaces = draw(w, w.text), draw(w, w.text)
		case 2:
			m.ServiceAccounts, m.NotServiceAccounts = draw(w, account), draw(w, account)
		case 3:
			m.SourceIPs, m.NotSourceIPs = draw(w, w.block), draw(w, w.block)
		case 4:
			m.DestinationIPs, m.NotDestinationIPs = draw(w, w.block), draw(w, w.block)
		case 5:
			m.DestinationPorts, m.NotDestinationPorts = draw(w, port), draw(w, port)
		}
	}
	return m
}

func (w world) policy(i int) *mesh.Policy {
	clause := func() mesh.Clause { return mesh.Clause{Matches: draw(w, w.match)} }
	rule := func() mesh.Rule { return mesh.Rule{Clauses: draw(w, clause)} }
	return &mesh.Policy{
		Key:    mesh.PolicyKey{Namespace: "n", Name: fmt.Sprint("p", i)},
		Action: mesh.Action(w.IntN(2)), DryRun: w.IntN(8) == 0,
		Rules: append(draw(w, rule), rule()),
	}
}

func TestEvaluateAgreesWithTheOracle(t *testing.T) {
	seed := rand.Uint64()
	w := world{rand.New(rand.NewPCG(seed, 0))}
	outcomes := map[bool]int{}
	for range 20000 {
		var s Set
		for i := range w.IntN(4) {
			s.Policies = append(s.Policies, w.policy(i))
		}
		if w.IntN(20) == 0 {
			s.Unknown = []mesh.PolicyKey{{Namespace: "n", Name: "unknown"}}
		}
		c := Connection{Source: w.id(), SourceIP: w.addr(), Destination: netip.AddrPortFrom(w.addr(), uint16(80+w.IntN(3)))}
		want := oracle(s, c)
		outcomes[want]++
		if v := Evaluate(s, c); v.Allow != want {
			t.Fatalf("seed %d: %q, the oracle allows %v\nconnection %+v\npolicies %+v", seed, v, want, c, s)
		}
	}
	if outcomes[true] < 4000 || outcomes[false] < 4000 {
		t.Errorf("the states are too much alike to prove anything: %v", outcomes)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	w := world{rand.New(rand.NewPCG(1, 2))}
	var s Set
	for i := range 20 {
		p := w.policy(i)
		p.Action = mesh.ActionAllow
		s.Policies = append(s.Policies, p)
	}
	c := Connection{Source: w.id(), SourceIP: w.addr(), Destination: netip.MustParseAddrPort("10.0.0.1:80")}
	b.ReportAllocs()
	for b.Loop() {
		Evaluate(s, c)
	}
}

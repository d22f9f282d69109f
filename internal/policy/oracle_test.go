package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// The oracle is a second evaluator, written from the text of the rules without
// looking at the first: it expands every rule into text, reads blocks bit by
// bit and templates by regular expressions. Random states must agree.

func oracle(s Set, q Request) bool {
	denied, anyAllow, allowed := len(s.Unknown) > 0, false, false
	for _, p := range s.Policies {
		if p.DryRun || p.Action == mesh.ActionAudit {
			continue
		}
		hit := oracleHit(p, q)
		switch p.Action {
		case mesh.ActionDeny:
			denied = denied || hit
		case mesh.ActionCustom:
			denied = denied || hit && !q.Asked
		case mesh.ActionAllow:
			anyAllow, allowed = true, allowed || hit
		}
	}
	return !denied && (!anyAllow || allowed)
}

func oracleHit(p *mesh.Policy, q Request) bool {
	hit := false
	for _, r := range p.Rules {
		all := true
		for _, cl := range r.Clauses {
			one := len(cl.Matches) == 0
			for _, m := range cl.Matches {
				one = one || oracleMatch(m, q, p.Action != mesh.ActionAllow)
			}
			all = all && one
		}
		hit = hit || all
	}
	return hit
}

func oracleMatch(m mesh.Match, q Request, closing bool) bool {
	c := q.Connection
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
	if m.HTTP != nil {
		n, holds := oracleHTTP(m.HTTP, q, closing)
		conditions += n
		ok = ok && holds
	}
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
	if w.IntN(2) == 0 {
		m.HTTP = w.http()
	}
	return m
}

func (w world) policy(i int) *mesh.Policy {
	clause := func() mesh.Clause { return mesh.Clause{Matches: draw(w, w.match)} }
	rule := func() mesh.Rule { return mesh.Rule{Clauses: draw(w, clause)} }
	return &mesh.Policy{
		Key:    mesh.PolicyKey{Namespace: "n", Name: fmt.Sprint("p", i)},
		Action: []mesh.Action{mesh.ActionAllow, mesh.ActionAllow, mesh.ActionDeny, mesh.ActionDeny, mesh.ActionAudit, mesh.ActionCustom}[w.IntN(6)],
		DryRun: w.IntN(8) == 0,
		Rules:  append(draw(w, rule), rule()),
	}
}

func (w world) set() (s Set) {
	for i := range w.IntN(4) {
		s.Policies = append(s.Policies, w.policy(i))
	}
	if w.IntN(20) == 0 {
		s.Unknown = []mesh.PolicyKey{{Namespace: "n", Name: "unknown"}}
	}
	return s
}

// TestEvaluateAgreesWithTheOracle compares a million random pairs of policies
// and a request, or a tenth of that with -short.
func TestEvaluateAgreesWithTheOracle(t *testing.T) {
	pairs := 1_000_000
	if testing.Short() {
		pairs /= 10
	}
	var total [2]atomic.Int64
	var workers sync.WaitGroup
	n := runtime.GOMAXPROCS(0)
	for i := range n {
		workers.Go(func() {
			seed := rand.Uint64()
			w := world{rand.New(rand.NewPCG(seed, 0))}
			for j := i; j < pairs; j += n {
				s, q := w.set(), w.request()
				want := oracle(s, q)
				if v := EvaluateRequest(s, q); v.Allow != want {
					t.Errorf("seed %d: %q, the oracle allows %v\n%s", seed, v, want, describe(s, q))
					return
				}
				for _, o := range Judge(s, q) {
					at := slices.IndexFunc(s.Policies, func(p *mesh.Policy) bool { return p.Key == o.Policy })
					if hit := oracleHit(s.Policies[at], q); hit != (o.Rule >= 0) {
						t.Errorf("seed %d: policy %s matches by rule %d, the oracle says %v\n%s", seed, o.Policy, o.Rule, hit, describe(s, q))
						return
					}
				}
				for _, r := range EvaluateRequest(s, q).DryRun {
					if enforced := oracle(enforcing(s, r.Policy), q); r.Action != mesh.ActionCustom && r.Allow != enforced {
						t.Errorf("seed %d: dry run %s would allow %v, the oracle says %v\n%s", seed, r.Policy, r.Allow, enforced, describe(s, q))
						return
					}
				}
				if want {
					total[1].Add(1)
				} else {
					total[0].Add(1)
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d pairs agree: %d denied, %d allowed", total[0].Load()+total[1].Load(), total[0].Load(), total[1].Load())
	if least := int64(pairs / 5); !t.Failed() && (total[0].Load() < least || total[1].Load() < least) {
		t.Error("the states are too much alike to prove anything")
	}
}

// enforcing is s with one dry-run policy enforced.
func enforcing(s Set, k mesh.PolicyKey) Set {
	out := Set{Unknown: s.Unknown}
	for _, p := range s.Policies {
		if p.Key == k {
			enforced := *p
			enforced.DryRun, p = false, &enforced
		}
		out.Policies = append(out.Policies, p)
	}
	return out
}

// FuzzEvaluate compares on texts that nobody thought of: value is what a policy
// demands of every attribute, text what a request has there.
func FuzzEvaluate(f *testing.F) {
	f.Add("/a/{**}", "/a/b", uint64(1))
	f.Add("a.com:80", "A.com.:80", uint64(2))
	f.Add("{*}", "x", uint64(3))
	f.Fuzz(func(t *testing.T, value, text string, seed uint64) {
		w := world{rand.New(rand.NewPCG(seed, 0))}
		s, q := w.set(), w.request()
		one := []mesh.StringMatch{{Op: mesh.StringOp(w.IntN(4)), Value: value}}
		m := &mesh.HTTPMatch{}
		switch w.IntN(5) {
		case 0:
			m.Hosts = one
		case 1:
			if utf8.ValidString(value) && !strings.ContainsAny(strings.Replace(value, "{**}", "", 1), "{}") { // else it is no template
				m.Paths = []mesh.PathPattern{{StringMatch: one[0], Template: true}}
			}
		case 2:
			m.Values = []mesh.NamedMatch{{Name: []string{"X"}, NotValues: one}}
		case 3:
			m.NotPaths = []mesh.PathPattern{{StringMatch: one[0]}}
		default:
			m.Values = []mesh.NamedMatch{{Attribute: mesh.AttributeSNI, Values: one}}
		}
		p := w.policy(9)
		p.Rules = append(p.Rules, rule(mesh.Match{HTTP: m}))
		s.Policies, q.SNI = append(s.Policies, p), text
		if q.HTTP != nil {
			q.HTTP.Host, q.HTTP.Path = text, text
			q.HTTP.Header["X"] = append(q.HTTP.Header["X"], text)
		}
		if v, want := EvaluateRequest(s, q), oracle(s, q); v.Allow != want {
			t.Fatalf("%q, the oracle allows %v\n%s", v, want, describe(s, q))
		}
	})
}

func describe(s Set, q Request) string {
	out := fmt.Sprintf("request %+v", q)
	if q.HTTP != nil {
		out += fmt.Sprintf("\nHTTP %+v", *q.HTTP)
		if q.HTTP.Token != nil {
			out += fmt.Sprintf("\ntoken %+v", *q.HTTP.Token)
		}
	}
	for _, p := range s.Policies {
		text, err := json.Marshal(p)
		out += fmt.Sprintf("\npolicy %s %v", text, err)
	}
	return out
}

// BenchmarkEvaluate is a request under policies that all look at it and none of
// which decides early.
func BenchmarkEvaluate(b *testing.B) {
	for _, n := range []int{1, 20, 100} {
		b.Run(fmt.Sprint(n, "policies"), func(b *testing.B) {
			var s Set
			for i := range n {
				s.Policies = append(s.Policies, &mesh.Policy{
					Key: mesh.PolicyKey{Namespace: "shop", Name: fmt.Sprint("p", i)}, Action: mesh.Action(i % 2),
					Rules: []mesh.Rule{{Clauses: []mesh.Clause{
						{Matches: []mesh.Match{{Principals: prefix("cluster.local/ns/shop/")}}},
						{Matches: []mesh.Match{{HTTP: &mesh.HTTPMatch{
							Methods: exact("GET"), Hosts: exact("reviews.shop.svc.cluster.local"),
							Paths:  []mesh.PathPattern{{StringMatch: mesh.StringMatch{Value: fmt.Sprint("/a", i, "/{*}/b/{**}")}, Template: true}},
							Values: []mesh.NamedMatch{{Name: []string{"X-User"}, Values: exact("jason")}},
						}}}},
					}}},
				})
			}
			q := Request{Connection: connection(), HTTP: &HTTP{
				Method: "GET", Path: "/a/1/b/c", Host: "reviews.shop.svc.cluster.local:9080", Header: map[string][]string{"X-User": {"jason"}},
			}}
			b.ReportAllocs()
			for b.Loop() {
				if EvaluateRequest(s, q).Allow {
					b.Fatal("it passes")
				}
			}
		})
	}
}

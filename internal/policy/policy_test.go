package policy

import (
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

var (
	client  = spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "client"}
	exact   = func(s string) []mesh.StringMatch { return []mesh.StringMatch{{Op: mesh.OpExact, Value: s}} }
	prefix  = func(s string) []mesh.StringMatch { return []mesh.StringMatch{{Op: mesh.OpPrefix, Value: s}} }
	suffix  = func(s string) []mesh.StringMatch { return []mesh.StringMatch{{Op: mesh.OpSuffix, Value: s}} }
	present = []mesh.StringMatch{{Op: mesh.OpPresence}}
	block   = func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
)

// connection is client to a pod's port 8080.
func connection() Connection {
	return Connection{Source: client, SourceIP: netip.MustParseAddr("10.1.1.9"), Destination: netip.MustParseAddrPort("10.1.1.3:8080")}
}

// anonymous is the same in plaintext.
func anonymous() Connection {
	c := connection()
	c.Source = spiffe.ID{}
	return c
}

// rule is one rule of one clause of the matches.
func rule(matches ...mesh.Match) mesh.Rule {
	return mesh.Rule{Clauses: []mesh.Clause{{Matches: matches}}}
}

func TestMatches(t *testing.T) {
	from := func(ip string) Connection {
		c := connection()
		c.SourceIP = netip.MustParseAddr(ip)
		return c
	}
	for _, tt := range []struct {
		sentence string
		rule     mesh.Rule
		c        Connection
		want     bool
	}{
		{"a rule without clauses matches everything", mesh.Rule{}, connection(), true},
		{"a clause without matches is true", mesh.Rule{Clauses: []mesh.Clause{{}}}, connection(), true},
		{"a match without attributes never matches", rule(mesh.Match{}), connection(), false},
		{"an empty match beside another leaves the other", rule(mesh.Match{}, mesh.Match{Principals: present}), connection(), true},
		{"clauses are and-ed", mesh.Rule{Clauses: []mesh.Clause{
			{Matches: []mesh.Match{{Principals: present}}}, {Matches: []mesh.Match{{DestinationPorts: []uint16{81}}}},
		}}, connection(), false},
		{"attributes of a match are and-ed", rule(mesh.Match{Principals: present, DestinationPorts: []uint16{81}}), connection(), false},
		{"a list is or-ed", rule(mesh.Match{DestinationPorts: []uint16{81, 8080}}), connection(), true},
		{"both lists of an attribute must hold", rule(mesh.Match{Principals: present, NotPrincipals: prefix("cluster.local/ns/shop/")}), connection(), false},

		{"a principal is compared without its scheme", rule(mesh.Match{Principals: exact("cluster.local/ns/shop/sa/client")}), connection(), true},
		{"a principal with its scheme is another text", rule(mesh.Match{Principals: exact("spiffe://cluster.local/ns/shop/sa/client")}), connection(), false},
		{"a principal by prefix", rule(mesh.Match{Principals: prefix("cluster.local/ns/shop/")}), connection(), true},
		{"a principal by suffix", rule(mesh.Match{Principals: suffix("/sa/client")}), connection(), true},
		{"a plaintext peer is no principal", rule(mesh.Match{Principals: present}), anonymous(), false},
		{"a plaintext peer is no principal, not even the empty one", rule(mesh.Match{Principals: exact("")}), anonymous(), false},
		{"a plaintext peer is no principal by an empty prefix", rule(mesh.Match{Principals: prefix("")}), anonymous(), false},
		{"a plaintext peer is not of any principal", rule(mesh.Match{NotPrincipals: present}), anonymous(), true},
		{"a peer with an identity is of one", rule(mesh.Match{NotPrincipals: present}), connection(), false},

		{"a namespace", rule(mesh.Match{Namespaces: exact("shop")}), connection(), true},
		{"a namespace of nobody", rule(mesh.Match{Namespaces: present}), anonymous(), false},
		{"a namespace that nobody is not in", rule(mesh.Match{NotNamespaces: exact("shop")}), anonymous(), true},
		{"an account whatever its trust domain", rule(mesh.Match{ServiceAccounts: []mesh.ServiceAccount{{Namespace: "shop", Name: "client"}}}), connection(), true},
		{"nobody's account is not the empty one", rule(mesh.Match{ServiceAccounts: []mesh.ServiceAccount{{}}}), anonymous(), false},
		{"an account that nobody has", rule(mesh.Match{NotServiceAccounts: []mesh.ServiceAccount{{Namespace: "shop", Name: "client"}}}), anonymous(), true},

		{"a source in a block", rule(mesh.Match{SourceIPs: block("10.1.0.0/16")}), connection(), true},
		{"a source outside of a block", rule(mesh.Match{SourceIPs: block("10.2.0.0/16")}), connection(), false},
		{"a source in its IPv6 form is in the IPv4 block", rule(mesh.Match{SourceIPs: block("10.1.0.0/16")}), from("::ffff:10.1.1.9"), true},
		{"a source with a zone is in its block", rule(mesh.Match{SourceIPs: block("fe80::/10")}), from("fe80::1%eth0"), true},
		{"a block of the other family holds nothing", rule(mesh.Match{SourceIPs: block("::/0")}), connection(), false},
		{"a destination by address", rule(mesh.Match{DestinationIPs: block("10.1.1.3/32")}), connection(), true},
		{"not a destination address", rule(mesh.Match{NotDestinationIPs: block("10.1.1.3/32")}), connection(), false},
		{"not a port", rule(mesh.Match{NotDestinationPorts: []uint16{8080}}), connection(), false},
	} {
		p := &mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: "p"}, Rules: []mesh.Rule{tt.rule}}
		if got := Evaluate(Set{Policies: []*mesh.Policy{p}}, tt.c).Allow; got != tt.want {
			t.Errorf("%s: matches %v, want %v", tt.sentence, got, tt.want)
		}
		p.Action = mesh.ActionDeny
		if got := !Evaluate(Set{Policies: []*mesh.Policy{p}}, tt.c).Allow; got != tt.want {
			t.Errorf("%s: denies %v, want %v", tt.sentence, got, tt.want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	all := []mesh.Rule{{}}
	other := []mesh.Rule{rule(mesh.Match{Namespaces: exact("elsewhere")})}
	p := func(name string, a mesh.Action, rules []mesh.Rule) *mesh.Policy {
		return &mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: name}, Action: a, Rules: rules}
	}
	dry := func(p *mesh.Policy) *mesh.Policy { p.DryRun = true; return p }
	allow, deny := mesh.ActionAllow, mesh.ActionDeny
	for _, tt := range []struct {
		sentence string
		set      Set
		want     string
		dry      int
	}{
		{"without policies it is open", Set{}, "allowed: no policy restricts it", 0},
		{"an ALLOW that matches opens", Set{Policies: []*mesh.Policy{p("a", allow, other), p("b", allow, append(other, all...))}}, "allowed by ALLOW policy shop/b rule 1", 0},
		{"an ALLOW that does not match closes", Set{Policies: []*mesh.Policy{p("a", allow, other)}}, "denied: no ALLOW policy matches (shop/a applies)", 0},
		{"an ALLOW without rules closes", Set{Policies: []*mesh.Policy{p("a", allow, nil)}}, "denied: no ALLOW policy matches (shop/a applies)", 0},
		{"a DENY without rules does nothing", Set{Policies: []*mesh.Policy{p("a", deny, nil)}}, "allowed: no policy restricts it", 0},
		{"a DENY beats an ALLOW before it", Set{Policies: []*mesh.Policy{p("a", allow, all), p("b", deny, all)}}, "denied by DENY policy shop/b rule 0", 0},
		{"a DENY that does not match leaves it open", Set{Policies: []*mesh.Policy{p("a", deny, other)}}, "allowed: no policy restricts it", 0},
		{"an unknown policy closes", Set{Unknown: []mesh.PolicyKey{{Namespace: "shop", Name: "x"}}}, "denied: policy shop/x is not known here yet", 0},
		{"an unknown policy closes what an ALLOW opens", Set{Policies: []*mesh.Policy{p("a", allow, all)}, Unknown: []mesh.PolicyKey{{Namespace: "shop", Name: "x"}}}, "denied: policy shop/x is not known here yet", 0},
		{"a dry run DENY is only noted", Set{Policies: []*mesh.Policy{dry(p("a", deny, all))}}, "allowed: no policy restricts it", 1},
		{"a dry run ALLOW closes nothing", Set{Policies: []*mesh.Policy{dry(p("a", allow, other))}}, "allowed: no policy restricts it", 1},
		{"a dry run ALLOW opens nothing", Set{Policies: []*mesh.Policy{dry(p("a", allow, all)), p("b", allow, other)}}, "denied: no ALLOW policy matches (shop/b applies)", 1},
	} {
		v := Evaluate(tt.set, connection())
		if v.String() != tt.want || len(v.DryRun) != tt.dry {
			t.Errorf("%s: got %q (%d dry), want %q (%d dry)", tt.sentence, v, len(v.DryRun), tt.want, tt.dry)
		}
		if (v.Cause == CauseAllowed || v.Cause == CauseNoPolicy) != v.Allow {
			t.Errorf("%s: verdict %q says Allow=%v", tt.sentence, v, v.Allow)
		}
	}
	if (Verdict{}).Allow || (Verdict{}).String() != "denied: not evaluated" {
		t.Error("a verdict that nobody gave must deny")
	}
}

func TestADryRunTellsWhatItWouldHaveDone(t *testing.T) {
	all, other := []mesh.Rule{{}}, []mesh.Rule{rule(mesh.Match{Namespaces: exact("elsewhere")})}
	p := func(a mesh.Action, rules []mesh.Rule) *mesh.Policy {
		return &mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: "enforced"}, Action: a, Rules: rules}
	}
	allow, deny := mesh.ActionAllow, mesh.ActionDeny
	for _, tt := range []struct {
		sentence string
		dry      *mesh.Policy
		enforced []*mesh.Policy
		want     bool
	}{
		{"a DENY that matches would deny", p(deny, all), nil, false},
		{"a DENY that does not match would change nothing", p(deny, other), nil, true},
		{"an ALLOW that does not match would close what nothing restricts", p(allow, other), nil, false},
		{"an ALLOW without rules would too", p(allow, nil), nil, false},
		{"an ALLOW that matches would leave it open", p(allow, all), nil, true},
		{"an ALLOW that does not match leaves open what another opens", p(allow, other), []*mesh.Policy{p(allow, all)}, true},
		{"an ALLOW that matches would open what no other does", p(allow, all), []*mesh.Policy{p(allow, other)}, true},
		{"an ALLOW that does not match would not", p(allow, other), []*mesh.Policy{p(allow, other)}, false},
		{"an ALLOW would not open what a DENY closes", p(allow, all), []*mesh.Policy{p(deny, all)}, false},
		{"a DENY beside a DENY", p(deny, other), []*mesh.Policy{p(deny, all)}, false},
		{"an AUDIT changes nothing", p(mesh.ActionAudit, all), nil, true},
	} {
		tt.dry.DryRun, tt.dry.Key.Name = true, "dry"
		without := Evaluate(Set{Policies: tt.enforced}, connection())
		v := Evaluate(Set{Policies: append([]*mesh.Policy{tt.dry}, tt.enforced...)}, connection())
		if v.Allow != without.Allow || v.Cause != without.Cause {
			t.Errorf("%s: with it the verdict is %q, without %q", tt.sentence, v, without)
		}
		if len(v.DryRun) != 1 || v.DryRun[0].Allow != tt.want || v.DryRun[0].Policy.Name != "dry" {
			t.Errorf("%s: rehearsed %+v, want allow=%v", tt.sentence, v.DryRun, tt.want)
		}
		tt.dry.DryRun = false
		if enforced := Evaluate(Set{Policies: append([]*mesh.Policy{tt.dry}, tt.enforced...)}, connection()); enforced.Allow != tt.want {
			t.Errorf("%s: enforced it is %q", tt.sentence, enforced)
		}
	}
}

package dump

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Policy is a mesh.Policy in istioctl's words: rules are nested lists of
// rule, clause and match.
type Policy struct {
	Name      string      `json:"name"`
	Namespace string      `json:"namespace"`
	Scope     string      `json:"scope"`
	Action    string      `json:"action"`
	DryRun    bool        `json:"dryRun,omitempty"`
	Rules     [][][]Match `json:"rules"`
}

// Match is one mesh.Match.
type Match struct {
	Namespaces          []StringMatch    `json:"namespaces,omitempty"`
	NotNamespaces       []StringMatch    `json:"notNamespaces,omitempty"`
	Principals          []StringMatch    `json:"principals,omitempty"`
	NotPrincipals       []StringMatch    `json:"notPrincipals,omitempty"`
	ServiceAccounts     []ServiceAccount `json:"serviceAccounts,omitempty"`
	NotServiceAccounts  []ServiceAccount `json:"notServiceAccounts,omitempty"`
	SourceIPs           []netip.Prefix   `json:"sourceIps,omitempty"`
	NotSourceIPs        []netip.Prefix   `json:"notSourceIps,omitempty"`
	DestinationIPs      []netip.Prefix   `json:"destinationIps,omitempty"`
	NotDestinationIPs   []netip.Prefix   `json:"notDestinationIps,omitempty"`
	DestinationPorts    []uint16         `json:"destinationPorts,omitempty"`
	NotDestinationPorts []uint16         `json:"notDestinationPorts,omitempty"`
}

// ServiceAccount is one account of a match.
type ServiceAccount struct {
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
}

// StringMatch is an object with one key, the comparison.
type StringMatch mesh.StringMatch

var operators = []string{mesh.OpExact: "Exact", mesh.OpPrefix: "Prefix", mesh.OpSuffix: "Suffix", mesh.OpPresence: "Presence"}

// MarshalJSON writes {"Exact": "value"}.
func (m StringMatch) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{operators[m.Op]: m.Value})
}

// UnmarshalJSON reads the same.
func (m *StringMatch) UnmarshalJSON(b []byte) error {
	var object map[string]*string
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	for op, name := range operators {
		if value, ok := object[name]; ok && len(object) == 1 {
			m.Op = mesh.StringOp(op)
			if value != nil {
				m.Value = *value
			}
			return nil
		}
	}
	return fmt.Errorf("string match %s: want one of Exact, Prefix, Suffix, Presence", b)
}

var policyScopes = []string{mesh.ScopeGlobal: "Global", mesh.ScopeNamespace: "Namespace", mesh.ScopeSelector: "WorkloadSelector"}

func policyOf(p *mesh.Policy) Policy {
	out := Policy{Name: p.Key.Name, Namespace: p.Key.Namespace, Scope: policyScopes[p.Scope], Action: "Allow", DryRun: p.DryRun, Rules: [][][]Match{}}
	if p.Action == mesh.ActionDeny {
		out.Action = "Deny"
	}
	for _, r := range p.Rules {
		rule := [][]Match{}
		for _, c := range r.Clauses {
			clause := []Match{}
			for i := range c.Matches {
				clause = append(clause, matchOf(&c.Matches[i]))
			}
			rule = append(rule, clause)
		}
		out.Rules = append(out.Rules, rule)
	}
	return out
}

func matchOf(m *mesh.Match) Match {
	return Match{
		Namespaces: convert(m.Namespaces, toText), NotNamespaces: convert(m.NotNamespaces, toText),
		Principals: convert(m.Principals, toText), NotPrincipals: convert(m.NotPrincipals, toText),
		ServiceAccounts: convert(m.ServiceAccounts, toAccount), NotServiceAccounts: convert(m.NotServiceAccounts, toAccount),
		SourceIPs: m.SourceIPs, NotSourceIPs: m.NotSourceIPs,
		DestinationIPs: m.DestinationIPs, NotDestinationIPs: m.NotDestinationIPs,
		DestinationPorts: m.DestinationPorts, NotDestinationPorts: m.NotDestinationPorts,
	}
}

func (m *Match) match() mesh.Match {
	return mesh.Match{
		Namespaces: convert(m.Namespaces, fromText), NotNamespaces: convert(m.NotNamespaces, fromText),
		Principals: convert(m.Principals, fromText), NotPrincipals: convert(m.NotPrincipals, fromText),
		ServiceAccounts: convert(m.ServiceAccounts, fromAccount), NotServiceAccounts: convert(m.NotServiceAccounts, fromAccount),
		SourceIPs: m.SourceIPs, NotSourceIPs: m.NotSourceIPs,
		DestinationIPs: m.DestinationIPs, NotDestinationIPs: m.NotDestinationIPs,
		DestinationPorts: m.DestinationPorts, NotDestinationPorts: m.NotDestinationPorts,
	}
}

func toText(m mesh.StringMatch) StringMatch          { return StringMatch(m) }
func fromText(m StringMatch) mesh.StringMatch        { return mesh.StringMatch(m) }
func toAccount(a mesh.ServiceAccount) ServiceAccount { return ServiceAccount{a.Namespace, a.Name} }
func fromAccount(a ServiceAccount) mesh.ServiceAccount {
	return mesh.ServiceAccount{Namespace: a.Namespace, Name: a.ServiceAccount}
}

func convert[A, B any](in []A, f func(A) B) []B {
	var out []B
	for _, a := range in {
		out = append(out, f(a))
	}
	return out
}

func (p *Policy) policy() (*mesh.Policy, error) {
	out := &mesh.Policy{Key: mesh.PolicyKey{Namespace: p.Namespace, Name: p.Name}, DryRun: p.DryRun}
	switch p.Scope {
	case "Global":
		out.Scope = mesh.ScopeGlobal
	case "Namespace":
		out.Scope = mesh.ScopeNamespace
	case "WorkloadSelector":
		out.Scope = mesh.ScopeSelector
	default:
		return nil, fmt.Errorf("policy %s: scope %q", out.Key, p.Scope)
	}
	switch p.Action {
	case "Allow":
	case "Deny":
		out.Action = mesh.ActionDeny
	default:
		return nil, fmt.Errorf("policy %s: action %q", out.Key, p.Action)
	}
	for _, r := range p.Rules {
		var rule mesh.Rule
		for _, c := range r {
			var clause mesh.Clause
			for i := range c {
				clause.Matches = append(clause.Matches, c[i].match())
			}
			rule.Clauses = append(rule.Clauses, clause)
		}
		out.Rules = append(out.Rules, rule)
	}
	return out, nil
}

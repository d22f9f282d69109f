package mesh

import (
	"fmt"
	"net/netip"
	"strings"
)

// PolicyKey names a policy; its text form is "namespace/name".
type PolicyKey struct {
	Namespace, Name string
}

// ParsePolicyKey reads "namespace/name".
func ParsePolicyKey(s string) (PolicyKey, error) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok || name == "" || strings.Contains(name, "/") {
		return PolicyKey{}, fmt.Errorf("policy key %q: want namespace/name", s)
	}
	return PolicyKey{ns, name}, nil
}

// String is "namespace/name".
func (k PolicyKey) String() string { return k.Namespace + "/" + k.Name }

// IsZero reports whether no policy is named.
func (k PolicyKey) IsZero() bool { return k == PolicyKey{} }

// PolicyScope says to which workloads a policy applies, numbered as on the wire.
type PolicyScope uint8

// The scopes: all workloads; those of the policy's namespace; those that list
// its key.
const (
	ScopeGlobal PolicyScope = iota
	ScopeNamespace
	ScopeSelector
)

// Action is what a matching policy does, numbered as on the wire.
type Action uint8

// The actions.
const (
	ActionAllow Action = iota
	ActionDeny
)

// String is the name users write.
func (a Action) String() string {
	if a == ActionDeny {
		return "DENY"
	}
	return "ALLOW"
}

// Policy is an L4 authorization policy (dataplane spec 5). Rules are OR-ed, a
// rule's clauses AND-ed, a clause's matches OR-ed.
type Policy struct {
	Key    PolicyKey
	Scope  PolicyScope
	Action Action
	Rules  []Rule
	DryRun bool
}

// Rule matches when all its clauses do; none matches everything.
type Rule struct{ Clauses []Clause }

// Clause matches when one of its matches does; none matches everything.
type Clause struct{ Matches []Match }

// Match matches when every attribute does; one with no attribute at all never
// matches. Each attribute has a positive list (any of) and a negative list
// (none of); an empty list is no condition.
type Match struct {
	Namespaces, NotNamespaces             []StringMatch
	Principals, NotPrincipals             []StringMatch
	ServiceAccounts, NotServiceAccounts   []ServiceAccount
	SourceIPs, NotSourceIPs               []netip.Prefix
	DestinationIPs, NotDestinationIPs     []netip.Prefix
	DestinationPorts, NotDestinationPorts []uint16
}

// ServiceAccount is one account whatever its trust domain.
type ServiceAccount struct{ Namespace, Name string }

// StringOp is how a StringMatch compares.
type StringOp uint8

// The comparisons.
const (
	OpExact StringOp = iota
	OpPrefix
	OpSuffix
	OpPresence
)

// StringMatch compares a text attribute.
type StringMatch struct {
	Op    StringOp
	Value string
}

// Matches applies the comparison; an empty attribute is never present.
func (m StringMatch) Matches(s string) bool {
	switch m.Op {
	case OpPrefix:
		return strings.HasPrefix(s, m.Value)
	case OpSuffix:
		return strings.HasSuffix(s, m.Value)
	case OpPresence:
		return s != ""
	}
	return s == m.Value
}

// String is the form users write: "*", "x*", "*x" or "x".
func (m StringMatch) String() string {
	switch m.Op {
	case OpPrefix:
		return m.Value + "*"
	case OpSuffix:
		return "*" + m.Value
	case OpPresence:
		return "*"
	}
	return m.Value
}

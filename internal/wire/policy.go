package wire

import (
	"errors"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire/securitypb"
)

// MarshalPolicy writes an Authorization resource. Its name is the text of the
// policy's key, and the body says the same, also of a global policy: upstream
// proxies key policies by the body and remove them by the name.
func MarshalPolicy(p *mesh.Policy) []byte {
	out := writePolicy(p)
	if p.DryRun {
		out = hide(out)
	}
	return marshal(out)
}

func writePolicy(p *mesh.Policy) *securitypb.Authorization {
	out := &securitypb.Authorization{
		Name:      p.Key.Name,
		Namespace: p.Key.Namespace,
		Scope:     securitypb.Scope(p.Scope),
		Action:    securitypb.Action(p.Action),
		DryRun:    p.DryRun,
	}
	for _, r := range p.Rules {
		rule := &securitypb.Rule{}
		for _, c := range r.Clauses {
			clause := &securitypb.Clause{}
			for i := range c.Matches {
				clause.Matches = append(clause.Matches, writeMatch(&c.Matches[i]))
			}
			rule.Clauses = append(rule.Clauses, clause)
		}
		out.Rules = append(out.Rules, rule)
	}
	return out
}

// UnmarshalPolicy reads the Authorization resource of that name. With an
// error, the policy, if not nil, still holds its key, scope and dry-run mark:
// enough for the reader to close what the policy was to guard.
func UnmarshalPolicy(name string, body []byte) (*mesh.Policy, error) {
	key, err := mesh.ParsePolicyKey(name)
	if err != nil {
		return nil, err
	}
	var in securitypb.Authorization
	if err := proto.Unmarshal(body, &in); err != nil {
		// Whom it guards cannot be read: everyone in its namespace, at least.
		return &mesh.Policy{Key: key, Scope: mesh.ScopeNamespace}, fmt.Errorf("decoding policy: %w", err)
	}
	p := &mesh.Policy{Key: key, Scope: mesh.PolicyScope(in.GetScope()), DryRun: in.GetDryRun()}
	if err := known("scope", int32(in.GetScope()), securitypb.Scope_name); err != nil {
		p.Scope = mesh.ScopeNamespace
		return p, err
	}
	if p.DryRun {
		if err := reveal(&in); err != nil {
			return p, err
		}
	}
	return p, readPolicyBody(p, &in)
}

func readPolicyBody(p *mesh.Policy, in *securitypb.Authorization) error {
	global := p.Scope == mesh.ScopeGlobal && in.GetNamespace() == ""
	if in.GetName() != p.Key.Name || in.GetNamespace() != p.Key.Namespace && !global {
		return fmt.Errorf("its body is of policy %s/%s", in.GetNamespace(), in.GetName())
	}
	if err := known("action", int32(in.GetAction()), securitypb.Action_name); err != nil {
		return err
	}
	p.Action = mesh.Action(in.GetAction())
	if err := understood(in); err != nil {
		return err
	}
	for i, r := range in.GetRules() {
		rule, err := readRule(r)
		if err != nil {
			return fmt.Errorf("rule %d: %w", i, err)
		}
		p.Rules = append(p.Rules, rule)
	}
	return nil
}

// understood refuses fields of a later protocol: a condition that this build
// cannot see may be what keeps the rule closed.
func understood(m proto.Message) error {
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		return fmt.Errorf("%s has fields that are not known here", m.ProtoReflect().Descriptor().Name())
	}
	return nil
}

func readRule(in *securitypb.Rule) (mesh.Rule, error) {
	var rule mesh.Rule
	if err := understood(in); err != nil {
		return rule, err
	}
	for _, c := range in.GetClauses() {
		if err := understood(c); err != nil {
			return rule, err
		}
		var clause mesh.Clause
		for _, m := range c.GetMatches() {
			match, err := readMatch(m)
			if err != nil {
				return rule, err
			}
			clause.Matches = append(clause.Matches, match)
		}
		rule.Clauses = append(rule.Clauses, clause)
	}
	return rule, nil
}

func writeMatch(m *mesh.Match) *securitypb.Match {
	return &securitypb.Match{
		Namespaces:          each(m.Namespaces, writeString),
		NotNamespaces:       each(m.NotNamespaces, writeString),
		Principals:          each(m.Principals, writeString),
		NotPrincipals:       each(m.NotPrincipals, writeString),
		SourceIps:           each(m.SourceIPs, writeBlock),
		NotSourceIps:        each(m.NotSourceIPs, writeBlock),
		DestinationIps:      each(m.DestinationIPs, writeBlock),
		NotDestinationIps:   each(m.NotDestinationIPs, writeBlock),
		DestinationPorts:    each(m.DestinationPorts, func(p uint16) uint32 { return uint32(p) }),
		NotDestinationPorts: each(m.NotDestinationPorts, func(p uint16) uint32 { return uint32(p) }),
		ServiceAccounts:     each(m.ServiceAccounts, writeAccount),
		NotServiceAccounts:  each(m.NotServiceAccounts, writeAccount),
	}
}

func readMatch(in *securitypb.Match) (m mesh.Match, err error) {
	if err := understood(in); err != nil {
		return m, err
	}
	if len(in.GetExtensions()) > 0 {
		return m, fmt.Errorf("match extension %q is not known here", in.GetExtensions()[0].GetName())
	}
	var r reader
	m.Namespaces = read(&r, in.GetNamespaces(), readString)
	m.NotNamespaces = read(&r, in.GetNotNamespaces(), readString)
	m.Principals = read(&r, in.GetPrincipals(), readString)
	m.NotPrincipals = read(&r, in.GetNotPrincipals(), readString)
	m.SourceIPs = read(&r, in.GetSourceIps(), readBlock)
	m.NotSourceIPs = read(&r, in.GetNotSourceIps(), readBlock)
	m.DestinationIPs = read(&r, in.GetDestinationIps(), readBlock)
	m.NotDestinationIPs = read(&r, in.GetNotDestinationIps(), readBlock)
	m.DestinationPorts = read(&r, in.GetDestinationPorts(), readPort)
	m.NotDestinationPorts = read(&r, in.GetNotDestinationPorts(), readPort)
	m.ServiceAccounts = read(&r, in.GetServiceAccounts(), readAccount)
	m.NotServiceAccounts = read(&r, in.GetNotServiceAccounts(), readAccount)
	return m, r.err
}

// reader keeps the first error of many lists.
type reader struct{ err error }

func read[In, Out any](r *reader, in []In, one func(In) (Out, error)) []Out {
	var out []Out
	for _, v := range in {
		o, err := one(v)
		if err != nil && r.err == nil {
			r.err = err
		}
		out = append(out, o)
	}
	return out
}

func each[In, Out any](in []In, one func(In) Out) []Out {
	var out []Out
	for _, v := range in {
		out = append(out, one(v))
	}
	return out
}

func writeString(m mesh.StringMatch) *securitypb.StringMatch {
	switch m.Op {
	case mesh.OpPrefix:
		return &securitypb.StringMatch{MatchType: &securitypb.StringMatch_Prefix{Prefix: m.Value}}
	case mesh.OpSuffix:
		return &securitypb.StringMatch{MatchType: &securitypb.StringMatch_Suffix{Suffix: m.Value}}
	case mesh.OpPresence:
		return &securitypb.StringMatch{MatchType: &securitypb.StringMatch_Presence{Presence: &emptypb.Empty{}}}
	case mesh.OpExact:
	}
	return &securitypb.StringMatch{MatchType: &securitypb.StringMatch_Exact{Exact: m.Value}}
}

func readString(in *securitypb.StringMatch) (mesh.StringMatch, error) {
	switch t := in.GetMatchType().(type) {
	case *securitypb.StringMatch_Exact:
		return mesh.StringMatch{Op: mesh.OpExact, Value: t.Exact}, nil
	case *securitypb.StringMatch_Prefix:
		return mesh.StringMatch{Op: mesh.OpPrefix, Value: t.Prefix}, nil
	case *securitypb.StringMatch_Suffix:
		return mesh.StringMatch{Op: mesh.OpSuffix, Value: t.Suffix}, nil
	case *securitypb.StringMatch_Presence:
		return mesh.StringMatch{Op: mesh.OpPresence}, nil
	}
	return mesh.StringMatch{}, errors.New("a string match of no known type")
}

func writeBlock(p netip.Prefix) *securitypb.Address {
	return &securitypb.Address{Address: p.Addr().AsSlice(), Length: uint32(p.Bits())}
}

func readBlock(in *securitypb.Address) (netip.Prefix, error) {
	if err := understood(in); err != nil {
		return netip.Prefix{}, err
	}
	return readPrefix(in.GetAddress(), in.GetLength())
}

func writeAccount(a mesh.ServiceAccount) *securitypb.ServiceAccountMatch {
	return &securitypb.ServiceAccountMatch{Namespace: a.Namespace, ServiceAccount: a.Name}
}

func readAccount(in *securitypb.ServiceAccountMatch) (mesh.ServiceAccount, error) {
	if err := understood(in); err != nil {
		return mesh.ServiceAccount{}, err
	}
	if in.GetServiceAccount() == "" {
		return mesh.ServiceAccount{}, errors.New("a service account without a name")
	}
	return mesh.ServiceAccount{Namespace: in.GetNamespace(), Name: in.GetServiceAccount()}, nil
}

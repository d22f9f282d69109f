package mesh

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
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
// its key; what its Targets name, at waypoints only (never on the wire to
// ztunnels).
const (
	ScopeGlobal PolicyScope = iota
	ScopeNamespace
	ScopeSelector
	ScopeTargets
)

// Action is what a matching policy does, numbered as on the wire.
type Action uint8

// The actions. Audit and Custom are for waypoints only.
const (
	ActionAllow Action = iota
	ActionDeny
	// ActionAudit notes the request and decides nothing.
	ActionAudit
	// ActionCustom asks Provider.
	ActionCustom
)

// String is the name users write.
func (a Action) String() string {
	return [...]string{"ALLOW", "DENY", "AUDIT", "CUSTOM"}[a&3]
}

// Policy is an authorization policy (dataplane spec 5, controlplane spec 2).
// Rules are OR-ed, a rule's clauses AND-ed, a clause's matches OR-ed.
type Policy struct {
	Key    PolicyKey
	Scope  PolicyScope
	Action Action
	Rules  []Rule
	DryRun bool
	// Targets are what a ScopeTargets policy guards.
	Targets []Target
	// Provider is whom a CUSTOM policy asks. One that is not configured is nil,
	// and the policy then denies what it matches.
	Provider *Provider
}

// Target is what a policy or an authentication is attached to; exactly one of
// its fields is set.
type Target struct {
	// Service is one service, whichever waypoint serves it.
	Service ServiceKey
	// Gateway is everything that one waypoint serves, by its service's key.
	Gateway ServiceKey
	// Class is everything that every waypoint serves.
	Class bool
}

// Provider is an external authorizer in Envoy's ext_authz protocol, from
// MeshConfig's extensionProviders.
type Provider struct {
	Name string
	// GRPC asks by gRPC, else by HTTP.
	GRPC bool
	// Service and Port are where it is. Host is set instead of Service for one
	// outside the mesh's services.
	Service ServiceKey
	Host    string
	Port    uint16
	// Timeout bounds one question; zero is 10 s, where Istio's 600 s would keep
	// requests waiting for a provider that is gone.
	Timeout time.Duration
	// FailOpen lets requests pass while the provider cannot be asked; the
	// default is to deny them, with StatusOnError (0 is 403).
	FailOpen      bool
	StatusOnError int
	// PathPrefix is put before the path of HTTP questions.
	PathPrefix string
	// The headers that go along with HTTP questions, and from the answers on to
	// the backend and back to the client; compared without case.
	IncludeRequestHeaders, HeadersToUpstream, HeadersToDownstreamOnDeny, HeadersToDownstreamOnAllow []StringMatch
	// AddHeaders are added to questions.
	AddHeaders []Header
	// MaxBody is how much of the request's body goes along; 0 is none.
	// AllowPartial sends the beginning of a longer one instead of denying it.
	// PackAsBytes sends it in gRPC questions as bytes, not as text.
	MaxBody      int
	AllowPartial bool
	PackAsBytes  bool
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
	// HTTP is nil in a match that asks only about the connection. Asked about a
	// connection that is not HTTP, it holds in no ALLOW and in every DENY.
	HTTP *HTTPMatch
}

// HTTPMatch is the attributes of a Match that only a waypoint sees.
type HTTPMatch struct {
	// Hosts are compared without case, and without the port unless the value
	// has one.
	Hosts, NotHosts     []StringMatch
	Methods, NotMethods []StringMatch
	// Paths are compared normalized, without the query.
	Paths, NotPaths                         []PathPattern
	RemoteIPs, NotRemoteIPs                 []netip.Prefix
	RequestPrincipals, NotRequestPrincipals []StringMatch
	// Values are headers, claims and other named attributes.
	Values []NamedMatch
}

// PathPattern is a StringMatch, or with Template a pattern of segments in
// which {*} is one segment and {**} any number of them.
type PathPattern struct {
	StringMatch
	Template bool
}

// Attribute is a kind of named attribute of a request.
type Attribute uint8

// The attributes of NamedMatch.
const (
	// AttributeHeader is the header Name[0].
	AttributeHeader Attribute = iota
	// AttributeClaim is the claim of a verified token at the path Name; a list
	// matches by any element.
	AttributeClaim
	// AttributeAudience and AttributePresenter are aud and azp of the token.
	AttributeAudience
	AttributePresenter
	// AttributeSNI is connection.sni.
	AttributeSNI
)

// NamedMatch holds when the attribute matches any of Values, if there are some,
// and none of NotValues.
type NamedMatch struct {
	Attribute         Attribute
	Name              []string
	Values, NotValues []StringMatch
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

package translate

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	api "istio.io/api/security/v1beta1"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// attributes is one source, operation or when, being read.
type attributes struct {
	// what it is, for the user.
	what    string
	match   mesh.Match
	request mesh.HTTPMatch     // put into match if anything is in it
	domains []mesh.StringMatch // trust domains, beside the principals in match
	trouble []trouble
	set     bool // something that can be evaluated is demanded
}

func (a *attributes) empty() bool { return !a.set }

// unseen reports whether nothing is left because L4 cannot see it.
func (a *attributes) unseen() bool {
	if a.set || len(a.trouble) == 0 {
		return false
	}
	for _, t := range a.trouble {
		if t.why != blindAtL4 {
			return false
		}
	}
	return true
}

// matches is what must hold, all of it.
func (a *attributes) matches() alternative {
	m := a.match
	if !reflect.ValueOf(a.request).IsZero() {
		m.HTTP = &a.request
	}
	switch {
	case len(a.domains) == 0:
		return alternative{m}
	case len(m.Principals) == 0:
		m.Principals = a.domains
		return alternative{m}
	}
	return alternative{m, {Principals: a.domains}}
}

func (c *conversion) source(s *api.Source) attributes {
	a := attributes{what: "a source"}
	values(&a, "principals", &a.match.Principals, s.GetPrincipals(), c.principals)
	values(&a, "notPrincipals", &a.match.NotPrincipals, s.GetNotPrincipals(), c.principals)
	values(&a, "namespaces", &a.match.Namespaces, s.GetNamespaces(), text)
	values(&a, "notNamespaces", &a.match.NotNamespaces, s.GetNotNamespaces(), text)
	values(&a, "serviceAccounts", &a.match.ServiceAccounts, s.GetServiceAccounts(), c.serviceAccount)
	values(&a, "notServiceAccounts", &a.match.NotServiceAccounts, s.GetNotServiceAccounts(), c.serviceAccount)
	values(&a, "ipBlocks", &a.match.SourceIPs, s.GetIpBlocks(), ipBlock)
	values(&a, "notIpBlocks", &a.match.NotSourceIPs, s.GetNotIpBlocks(), ipBlock)
	values(&a, "trustDomains", &a.domains, s.GetTrustDomains(), c.trustDomain)
	values(&a, "notTrustDomains", &a.match.NotPrincipals, s.GetNotTrustDomains(), c.trustDomain)
	c.requestSource(&a, s)
	return a
}

func (c *conversion) operation(o *api.Operation) attributes {
	a := attributes{what: "an operation"}
	values(&a, "ports", &a.match.DestinationPorts, o.GetPorts(), port)
	values(&a, "notPorts", &a.match.NotDestinationPorts, o.GetNotPorts(), port)
	c.requestOperation(&a, o)
	return a
}

func (c *conversion) when(w *api.Condition) attributes {
	a := attributes{what: "condition " + strconv.Quote(w.GetKey())}
	m, yes, no := &a.match, w.GetValues(), w.GetNotValues()
	switch w.GetKey() {
	case "source.principal":
		values(&a, w.Key, &m.Principals, yes, c.principals)
		values(&a, w.Key, &m.NotPrincipals, no, c.principals)
	case "source.trustDomain":
		values(&a, w.Key, &m.Principals, yes, c.trustDomain)
		values(&a, w.Key, &m.NotPrincipals, no, c.trustDomain)
	case "source.namespace":
		values(&a, w.Key, &m.Namespaces, yes, text)
		values(&a, w.Key, &m.NotNamespaces, no, text)
	case "source.serviceAccount":
		values(&a, w.Key, &m.ServiceAccounts, yes, c.serviceAccount)
		values(&a, w.Key, &m.NotServiceAccounts, no, c.serviceAccount)
	case "source.ip":
		values(&a, w.Key, &m.SourceIPs, yes, ipBlock)
		values(&a, w.Key, &m.NotSourceIPs, no, ipBlock)
	case "destination.ip":
		values(&a, w.Key, &m.DestinationIPs, yes, ipBlock)
		values(&a, w.Key, &m.NotDestinationIPs, no, ipBlock)
	case "destination.port":
		values(&a, w.Key, &m.DestinationPorts, yes, port)
		values(&a, w.Key, &m.NotDestinationPorts, no, port)
	default:
		c.requestWhen(&a, w)
	}
	return a
}

// values reads a list. One value that cannot be read spoils the list: without
// it a positive list would demand something else than its author meant, and a
// negative one would except less.
func values[T any](a *attributes, name string, to *[]T, in []string, read func(string) ([]T, string)) {
	var out []T
	for _, text := range in {
		v, why := read(text)
		if why != "" {
			a.trouble = append(a.trouble, trouble{name, strconv.Quote(text) + " " + why})
			return
		}
		out = append(out, v...)
	}
	if len(out) > 0 {
		*to = append(*to, out...)
		a.set = true
	}
}

// text reads the forms "*", "*x", "x*" and "x".
func text(s string) ([]mesh.StringMatch, string) {
	switch {
	case s == "":
		return nil, "is empty"
	case s == "*":
		return []mesh.StringMatch{{Op: mesh.OpPresence}}, ""
	case strings.HasPrefix(s, "*"):
		return []mesh.StringMatch{{Op: mesh.OpSuffix, Value: s[1:]}}, ""
	case strings.HasSuffix(s, "*"):
		return []mesh.StringMatch{{Op: mesh.OpPrefix, Value: s[:len(s)-1]}}, ""
	}
	return []mesh.StringMatch{{Op: mesh.OpExact, Value: s}}, ""
}

// serviceAccount reads "namespace/name", or "name" in the policy's namespace.
func (c *conversion) serviceAccount(s string) ([]mesh.ServiceAccount, string) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok {
		namespace, name = c.namespace, s
	}
	if namespace == "" || name == "" || strings.ContainsAny(s, "*") || strings.Contains(name, "/") {
		return nil, "is not a service account"
	}
	return []mesh.ServiceAccount{{Namespace: namespace, Name: name}}, ""
}

func ipBlock(s string) ([]netip.Prefix, string) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, ""
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return nil, "is not an address or CIDR block"
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return nil, "is not an address or CIDR block"
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return []netip.Prefix{p.Masked()}, ""
}

func port(s string) ([]uint16, string) {
	p, err := strconv.ParseUint(s, 10, 16)
	if err != nil || p == 0 {
		return nil, "is not a port"
	}
	return []uint16{uint16(p)}, ""
}

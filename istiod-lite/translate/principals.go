package translate

import (
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// principals reads an identity without its scheme. The mesh's trust domain may
// have several names: what matches an account under one matches it under all.
func (c *conversion) principals(s string) ([]mesh.StringMatch, string) {
	m, why := text(strings.TrimPrefix(s, "spiffe://"))
	if why != "" || m[0].Op == mesh.OpPresence {
		return m, why
	}
	domain, rest, whole := strings.Cut(m[0].Value, "/")
	switch {
	case m[0].Op == mesh.OpSuffix:
		if strings.HasPrefix(rest, "ns/") && c.ours(func(d string) bool { return strings.HasSuffix(d, domain) }) {
			m = append(m, c.underAll(mesh.OpExact, rest)...)
		}
		return m, ""
	case whole:
		var out []mesh.StringMatch
		for _, d := range c.names(domain) {
			out = append(out, mesh.StringMatch{Op: m[0].Op, Value: d + "/" + rest})
		}
		return out, ""
	case m[0].Op == mesh.OpPrefix:
		return c.beginning(m[0]), ""
	}
	return m, ""
}

// trustDomain reads a trust domain as the beginning of a principal.
func (c *conversion) trustDomain(s string) ([]mesh.StringMatch, string) {
	m, why := text(s)
	switch {
	case why != "":
		return nil, why
	case strings.Contains(s, "/"):
		return nil, "is not a trust domain"
	case m[0].Op == mesh.OpSuffix:
		return nil, "cannot be compared"
	case m[0].Op == mesh.OpPrefix:
		return c.beginning(m[0]), ""
	case m[0].Op == mesh.OpExact:
		var out []mesh.StringMatch
		for _, d := range c.names(s) {
			out = append(out, mesh.StringMatch{Op: mesh.OpPrefix, Value: d + "/"})
		}
		return out, ""
	}
	return m, ""
}

// beginning is a prefix that may be the beginning of one of the mesh's names,
// and then covers all of them.
func (c *conversion) beginning(m mesh.StringMatch) []mesh.StringMatch {
	out := []mesh.StringMatch{m}
	if c.ours(func(d string) bool { return strings.HasPrefix(d, m.Value) }) {
		out = append(out, c.underAll(mesh.OpPrefix, "")...)
	}
	return out
}

// underAll is the rest of a principal under each of the mesh's names.
func (c *conversion) underAll(op mesh.StringOp, rest string) []mesh.StringMatch {
	var out []mesh.StringMatch
	for _, d := range c.names(c.mesh.TrustDomain) {
		out = append(out, mesh.StringMatch{Op: op, Value: d + "/" + rest})
	}
	return out
}

// ours reports whether the mesh has a further name beside one of this form.
func (c *conversion) ours(form func(string) bool) bool {
	return len(c.mesh.TrustDomainAliases) > 0 && slices.ContainsFunc(c.names(c.mesh.TrustDomain), form)
}

// clusterLocal means the mesh's own trust domain, whatever its name.
const clusterLocal = "cluster.local"

// names are the trust domains that one stands for: one of the mesh's stands for
// all of them.
func (c *conversion) names(domain string) []string {
	ours := append([]string{c.mesh.TrustDomain}, c.mesh.TrustDomainAliases...)
	if domain == clusterLocal || slices.Contains(ours, domain) {
		return ours
	}
	return []string{domain}
}

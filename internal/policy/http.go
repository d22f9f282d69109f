package policy

import (
	"encoding/json"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// http folds the attributes that only a waypoint sees.
func (t *trial) http(m *mesh.HTTPMatch) {
	q, h := t.q, t.q.HTTP
	demand(t, m.RemoteIPs, m.NotRemoteIPs, func(x netip.Prefix) bool { return x.Contains(q.RemoteIP) })
	demandHTTP(t, m.Methods, m.NotMethods, func(x mesh.StringMatch) bool { return x.Matches(h.Method) })
	demandHTTP(t, m.Hosts, m.NotHosts, func(x mesh.StringMatch) bool { return matchesHost(x, h.Host) })
	demandHTTP(t, m.Paths, m.NotPaths, func(x mesh.PathPattern) bool { return matchesPath(x, h.Path) })
	demandHTTP(t, m.RequestPrincipals, m.NotRequestPrincipals, func(x mesh.StringMatch) bool {
		return h.Token != nil && x.Matches(h.Token.Principal)
	})
	for i := range m.Values {
		t.named(&m.Values[i])
	}
}

// demandHTTP folds an attribute of requests. What is not a request has none:
// only widening makes it hold.
func demandHTTP[T any](t *trial, want, not []T, match func(T) bool) {
	if len(want) == 0 && len(not) == 0 {
		return
	}
	if t.q.HTTP == nil {
		t.set, t.ok = true, t.ok && t.widen
		return
	}
	demand(t, want, not, match)
}

// named folds a header, a claim or the like.
func (t *trial) named(n *mesh.NamedMatch) {
	if len(n.Values) == 0 && len(n.NotValues) == 0 {
		return
	}
	if n.Attribute == mesh.AttributeSNI {
		demand(t, n.Values, n.NotValues, func(x mesh.StringMatch) bool { return matchesFolded(x, t.q.SNI) })
		return
	}
	if h := t.q.HTTP; n.Attribute == mesh.AttributeHeader && h != nil {
		t.set, t.ok = true, t.ok && t.header(n, h)
		return
	}
	demandHTTP(t, n.Values, n.NotValues, func(x mesh.StringMatch) bool {
		token := t.q.HTTP.Token
		if token == nil {
			return false
		}
		switch n.Attribute {
		case mesh.AttributeClaim:
			return matchesClaim(x, claim(token.Claims, n.Name))
		case mesh.AttributeAudience:
			return slices.ContainsFunc(token.Audiences, x.Matches)
		case mesh.AttributePresenter:
			return x.Matches(token.Presenter)
		}
		return false
	})
}

// header holds for all readings of the header in an ALLOW and for any of them
// else. A header sent once has one reading. Of one sent several times, programs
// read the first, the last or all of them joined: each value is a reading, and
// so is the joined text, which is the only one upstream.
func (t *trial) header(n *mesh.NamedMatch, h *HTTP) bool {
	if len(n.Name) == 0 {
		return t.widen
	}
	lines := headerLines(h, n.Name[0])
	switch len(lines) {
	case 0:
		return len(n.Values) == 0
	case 1:
		return matchesLine(n, lines[0])
	}
	holds := func(text string) bool { return matchesLine(n, text) }
	if t.widen {
		return holds(strings.Join(lines, ",")) || slices.ContainsFunc(lines, holds)
	}
	return holds(strings.Join(lines, ",")) && !slices.ContainsFunc(lines, func(text string) bool { return !holds(text) })
}

// headerLines are the values of a header, by any spelling of its name.
func headerLines(h *HTTP, name string) []string {
	switch {
	case strings.EqualFold(name, "host"), name == ":authority":
		return []string{h.Host}
	case name == ":method":
		return []string{h.Method}
	}
	return h.Header[textproto.CanonicalMIMEHeaderKey(name)]
}

// matchesLine compares one reading. A header that is there is present, even if
// it is empty.
func matchesLine(n *mesh.NamedMatch, text string) bool {
	match := func(m mesh.StringMatch) bool { return m.Op == mesh.OpPresence || m.Matches(text) }
	return (len(n.Values) == 0 || slices.ContainsFunc(n.Values, match)) && !slices.ContainsFunc(n.NotValues, match)
}

// claim is the value at a path of a token's claims, nil if there is none.
func claim(claims map[string]any, path []string) any {
	var at any = claims
	for _, name := range path {
		level, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = level[name]
	}
	return at
}

// matchesClaim compares a claim, or any element of a list. Numbers and booleans
// are compared by their JSON text.
func matchesClaim(m mesh.StringMatch, v any) bool {
	switch v := v.(type) {
	case string:
		return m.Matches(v)
	case bool:
		return m.Matches(strconv.FormatBool(v))
	case json.Number:
		return m.Matches(v.String())
	case []any:
		return slices.ContainsFunc(v, func(e any) bool {
			_, list := e.([]any)
			return !list && matchesClaim(m, e)
		})
	}
	return false
}

// matchesHost compares a host without case, and without its port and the final
// dot of a full name unless the value has a port.
func matchesHost(m mesh.StringMatch, host string) bool {
	name, port := host, ""
	if at := portAt(host); at >= 0 {
		name, port = host[:at], host[at:]
	}
	name, full := strings.CutSuffix(name, ".")
	switch {
	case portAt(m.Value) < 0:
		return matchesFolded(m, name)
	case full:
		return matchesFolded(m, name+port)
	}
	return matchesFolded(m, host)
}

// portAt is where ":port" begins, -1 if there is none.
func portAt(host string) int {
	at := strings.LastIndexByte(host, ':')
	if at < strings.LastIndexByte(host, ']') {
		return -1
	}
	return at
}

// matchesFolded compares without the case of ASCII letters, which is all that
// names of hosts have.
func matchesFolded(m mesh.StringMatch, s string) bool {
	switch m.Op {
	case mesh.OpPrefix:
		return len(s) >= len(m.Value) && equalFolded(s[:len(m.Value)], m.Value)
	case mesh.OpSuffix:
		return len(s) >= len(m.Value) && equalFolded(s[len(s)-len(m.Value):], m.Value)
	case mesh.OpPresence:
		return s != ""
	}
	return equalFolded(s, m.Value)
}

func equalFolded(a, b string) bool {
	if len(a) != len(b) || a == b {
		return a == b
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func matchesPath(p mesh.PathPattern, path string) bool {
	if p.Template {
		return matchesTemplate(p.Value, path)
	}
	return p.Matches(path)
}

// matchesTemplate compares by Envoy's URI templates: {*} is one or more
// characters of one segment, {**} any text; nothing but text follows {**}.
func matchesTemplate(template, path string) bool {
	for {
		text, after, operator := strings.Cut(template, "{*")
		if !operator {
			return template == path
		}
		rest, ok := strings.CutPrefix(path, text)
		if !ok {
			return false
		}
		if tail, any := strings.CutPrefix(after, "*}"); any {
			return strings.HasSuffix(rest, tail)
		}
		end := strings.IndexByte(rest, '/')
		if end < 0 {
			end = len(rest)
		}
		if end == 0 || !strings.HasPrefix(after, "}") {
			return false
		}
		template, path = after[1:], rest[end:]
	}
}

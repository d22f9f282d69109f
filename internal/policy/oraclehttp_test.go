package policy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// oracleHTTP counts the attributes that m has, and tells whether all hold.
func oracleHTTP(m *mesh.HTTPMatch, q Request, closing bool) (conditions int, ok bool) {
	ok = true
	demand := func(listed int, holds bool) {
		if listed > 0 {
			conditions++
			ok = ok && holds
		}
	}
	remote := q.RemoteIP
	if !remote.IsValid() {
		remote = q.SourceIP
	}
	demand(len(m.RemoteIPs), oracleBlocks(m.RemoteIPs, remote) > 0)
	demand(len(m.NotRemoteIPs), oracleBlocks(m.NotRemoteIPs, remote) == 0)
	// Of a connection that is not HTTP nothing of this is known: a demand for
	// it holds where that closes.
	request := func(listed int, holds func(h *HTTP) bool) {
		if q.HTTP == nil {
			demand(listed, closing)
		} else {
			demand(listed, holds(q.HTTP))
		}
	}
	request(len(m.Hosts), func(h *HTTP) bool { return oracleHosts(m.Hosts, h.Host) })
	request(len(m.NotHosts), func(h *HTTP) bool { return !oracleHosts(m.NotHosts, h.Host) })
	request(len(m.Methods), func(h *HTTP) bool { return oracleStrings(m.Methods, h.Method, true) > 0 })
	request(len(m.NotMethods), func(h *HTTP) bool { return oracleStrings(m.NotMethods, h.Method, true) == 0 })
	request(len(m.Paths), func(h *HTTP) bool { return oraclePaths(m.Paths, h.Path) })
	request(len(m.NotPaths), func(h *HTTP) bool { return !oraclePaths(m.NotPaths, h.Path) })
	request(len(m.RequestPrincipals), func(h *HTTP) bool {
		return h.Token != nil && oracleStrings(m.RequestPrincipals, h.Token.Principal, true) > 0
	})
	request(len(m.NotRequestPrincipals), func(h *HTTP) bool {
		return h.Token == nil || oracleStrings(m.NotRequestPrincipals, h.Token.Principal, true) == 0
	})
	for _, n := range m.Values {
		if n.Attribute == mesh.AttributeSNI {
			folded := func(list []mesh.StringMatch) int { return oracleStrings(inLower(list), asciiLower(q.SNI), true) }
			demand(len(n.Values), folded(n.Values) > 0)
			demand(len(n.NotValues), folded(n.NotValues) == 0)
			continue
		}
		request(len(n.Values)+len(n.NotValues), func(h *HTTP) bool { return oracleNamed(n, h, closing) })
	}
	return conditions, ok
}

func asciiLower(s string) string {
	out := []byte(s)
	for i, c := range out {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ", c) >= 0 {
			out[i] = c + 32
		}
	}
	return string(out)
}

func inLower(list []mesh.StringMatch) []mesh.StringMatch {
	out := slices.Clone(list)
	for i := range out {
		out[i].Value = asciiLower(out[i].Value)
	}
	return out
}

func oracleHosts(list []mesh.StringMatch, host string) bool {
	full := regexp.MustCompile(`(?s)^(.*?)\.?(:[^:\]]*)?$`).FindStringSubmatch(asciiLower(host))
	return slices.ContainsFunc(inLower(list), func(m mesh.StringMatch) bool {
		text := full[1]
		if regexp.MustCompile(`:[^:\]]*$`).MatchString(m.Value) {
			text += full[2]
		}
		return oracleStrings([]mesh.StringMatch{m}, text, true) > 0
	})
}

func oraclePaths(list []mesh.PathPattern, path string) bool {
	return slices.ContainsFunc(list, func(p mesh.PathPattern) bool {
		if !p.Template {
			return oracleStrings([]mesh.StringMatch{p.StringMatch}, path, true) > 0
		}
		e := regexp.QuoteMeta(p.Value)
		e = strings.ReplaceAll(e, regexp.QuoteMeta("{**}"), ".*")
		e = strings.ReplaceAll(e, regexp.QuoteMeta("{*}"), "[^/]+")
		return regexp.MustCompile("(?s)^" + e + "$").MatchString(path)
	})
}

// oracleNamed reads the attribute as all the texts it may be taken for, each of
// them a list of values of which any may match.
func oracleNamed(n mesh.NamedMatch, h *HTTP, closing bool) bool {
	var readings [][]string
	present := false
	switch n.Attribute {
	case mesh.AttributeHeader:
		lines := h.Header[http.CanonicalHeaderKey(n.Name[0])]
		present = len(lines) > 0
		for _, line := range lines {
			readings = append(readings, []string{line})
		}
		readings = append(readings, []string{strings.Join(lines, ",")})
		if !present {
			readings = [][]string{nil}
		}
	case mesh.AttributeClaim:
		readings = [][]string{oracleClaim(h, n.Name)}
	case mesh.AttributeAudience:
		readings = [][]string{nil}
		if h.Token != nil {
			readings = [][]string{h.Token.Audiences}
		}
	case mesh.AttributePresenter:
		readings = [][]string{nil}
		if h.Token != nil {
			readings = [][]string{{h.Token.Presenter}}
		}
	}
	matches := func(list []mesh.StringMatch, texts []string) bool {
		for _, m := range list {
			for _, text := range texts {
				if oracleStrings([]mesh.StringMatch{m}, text, true) > 0 || present && m.Op == mesh.OpPresence {
					return true
				}
			}
		}
		return false
	}
	all, some := true, false
	for _, texts := range readings {
		one := (len(n.Values) == 0 || matches(n.Values, texts)) && !matches(n.NotValues, texts)
		all, some = all && one, some || one
	}
	if closing {
		return some
	}
	return all
}

// oracleClaim goes down by the text of JSON.
func oracleClaim(h *HTTP, path []string) []string {
	if h.Token == nil {
		return nil
	}
	text, err := json.Marshal(h.Token.Claims)
	if err != nil {
		panic(err)
	}
	for _, name := range path {
		var level map[string]json.RawMessage
		if json.Unmarshal(text, &level) != nil || level[name] == nil {
			return nil
		}
		text = level[name]
	}
	elements := []json.RawMessage{text}
	if text[0] == '[' {
		if err := json.Unmarshal(text, &elements); err != nil {
			panic(err)
		}
	}
	var out []string
	for _, e := range elements {
		var s string
		switch {
		case json.Unmarshal(e, &s) == nil && string(e) != "null":
			out = append(out, s)
		case e[0] != '[' && e[0] != '{' && string(e) != "null":
			out = append(out, string(e))
		}
	}
	return out
}

func (w world) path() string {
	return w.pick("/", "/a", "/a/", "/a/b", "/a/b/", "/a/c/b", "/a/b/c/b", "/ab", "//", "")
}

func (w world) pattern() mesh.PathPattern {
	if w.IntN(2) == 0 {
		m := mesh.PathPattern{Template: true}
		m.Value = w.pick("/a/{*}", "/a/{**}", "/{*}/b", "/a/{*}/b", "/{**}", "/a/{**}/b", "/{*}/{*}", "/{*}/c/{**}", "{**}", "/a{*}")
		return m
	}
	return mesh.PathPattern{StringMatch: mesh.StringMatch{Op: mesh.StringOp(w.IntN(4)), Value: w.path()}}
}

func (w world) host() string {
	return w.pick("a.com", "A.com", "a.com:80", "a.com.", "a.com.:80", "b.a.com", "[::1]", "[::1]:80", "")
}

func (w world) plainText() mesh.StringMatch {
	return mesh.StringMatch{Op: mesh.StringOp(w.IntN(4)), Value: w.pick("a", "b", "ab", "a,b", "b,", "true", "7", "GET", "P", "")}
}

func (w world) http() *mesh.HTTPMatch {
	host := func() mesh.StringMatch {
		return mesh.StringMatch{Op: mesh.StringOp(w.IntN(4)), Value: w.pick("a.com", "A.COM", ".com", "a.", ":80", "a.com:80", "a.com:", "[::1]", "b")}
	}
	principal := func() mesh.StringMatch {
		return mesh.StringMatch{Op: mesh.StringOp(w.IntN(4)), Value: w.pick("iss/sub", "iss/", "/sub", "other/sub", "")}
	}
	m := &mesh.HTTPMatch{}
	for range 1 + w.IntN(2) {
		switch w.IntN(7) {
		case 0:
			m.Hosts, m.NotHosts = draw(w, host), draw(w, host)
		case 1:
			m.Methods, m.NotMethods = draw(w, w.plainText), draw(w, w.plainText)
		case 2:
			m.Paths, m.NotPaths = draw(w, w.pattern), draw(w, w.pattern)
		case 3:
			m.RemoteIPs, m.NotRemoteIPs = draw(w, w.block), draw(w, w.block)
		case 4:
			m.RequestPrincipals, m.NotRequestPrincipals = draw(w, principal), draw(w, principal)
		default:
			m.Values = append(m.Values, w.named())
		}
	}
	return m
}

func (w world) named() mesh.NamedMatch {
	n := mesh.NamedMatch{Attribute: mesh.Attribute(w.IntN(5)), Values: draw(w, w.plainText), NotValues: draw(w, w.plainText)}
	switch n.Attribute {
	case mesh.AttributeHeader:
		n.Name = []string{w.pick("x", "X", "y")}
	case mesh.AttributeClaim:
		n.Name = [][]string{{"c"}, {"nested", "c"}, {"nested"}, {"gone", "c"}}[w.IntN(4)]
	}
	return n
}

func (w world) request() Request {
	q := Request{
		Connection: Connection{Source: w.id(), SourceIP: w.addr(), Destination: netip.AddrPortFrom(w.addr(), uint16(80+w.IntN(3)))},
		SNI:        w.pick("", "a", "AB", "b"), Asked: w.IntN(2) == 0,
	}
	if w.IntN(2) == 0 {
		q.RemoteIP = w.addr()
	}
	if w.IntN(5) == 0 {
		return q
	}
	text := func() string { return w.pick("a", "b", "ab", "") }
	q.HTTP = &HTTP{Method: w.pick("GET", "POST", "a"), Path: w.path(), Host: w.host(), Header: map[string][]string{"X": draw(w, text), "Y": {text()}}}
	if w.IntN(2) == 0 {
		q.HTTP.Token = &Token{
			Principal: w.pick("iss/sub", "other/sub", "iss/x"), Audiences: draw(w, text), Presenter: text(),
			Claims: map[string]any{"c": w.claim(2), "nested": map[string]any{"c": w.claim(2)}},
		}
	}
	return q
}

func (w world) claim(depth int) any {
	switch w.IntN(7) {
	case 0:
		return w.IntN(2) == 0
	case 1:
		return json.Number(fmt.Sprint(6 + w.IntN(3)))
	case 2:
		return nil
	case 3, 4:
		if depth > 0 {
			return draw(w, func() any { return w.claim(depth - 1) })
		}
	}
	return w.pick("a", "b", "ab", "")
}

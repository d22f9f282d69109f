package translate

import (
	"strconv"
	"strings"

	api "istio.io/api/security/v1beta1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/urlpath"
)

const blindAtL4 = "cannot be seen at L4"

// blind says why attributes of requests cannot be evaluated; empty if they can.
func (c *conversion) blind() string {
	if c.waypoint {
		return ""
	}
	return blindAtL4
}

// blindToTokens is the same for what a verified token says.
func (c *conversion) blindToTokens() string {
	if c.waypoint && c.action == mesh.ActionCustom {
		return "cannot be told before the provider is asked, since tokens are verified after that"
	}
	return c.blind()
}

// requestValues reads a list unless why says that it is of no use.
func requestValues[T any](a *attributes, name, why string, to *[]T, in []string, read func(string) ([]T, string)) {
	if why != "" && len(in) > 0 {
		a.trouble = append(a.trouble, trouble{name, why})
		return
	}
	values(a, name, to, in, read)
}

// requestSource reads what of a source only a waypoint sees.
func (c *conversion) requestSource(a *attributes, s *api.Source) {
	m, why, tokens := &a.request, c.blind(), c.blindToTokens()
	requestValues(a, "requestPrincipals", tokens, &m.RequestPrincipals, s.GetRequestPrincipals(), text)
	requestValues(a, "notRequestPrincipals", tokens, &m.NotRequestPrincipals, s.GetNotRequestPrincipals(), text)
	requestValues(a, "remoteIpBlocks", why, &m.RemoteIPs, s.GetRemoteIpBlocks(), ipBlock)
	requestValues(a, "notRemoteIpBlocks", why, &m.NotRemoteIPs, s.GetNotRemoteIpBlocks(), ipBlock)
}

// requestOperation reads what of an operation only a waypoint sees.
func (c *conversion) requestOperation(a *attributes, o *api.Operation) {
	m, why := &a.request, c.blind()
	requestValues(a, "hosts", why, &m.Hosts, o.GetHosts(), text)
	requestValues(a, "notHosts", why, &m.NotHosts, o.GetNotHosts(), text)
	requestValues(a, "methods", why, &m.Methods, o.GetMethods(), text)
	requestValues(a, "notMethods", why, &m.NotMethods, o.GetNotMethods(), text)
	requestValues(a, "paths", why, &m.Paths, o.GetPaths(), pathPattern)
	requestValues(a, "notPaths", why, &m.NotPaths, o.GetNotPaths(), pathPattern)
}

// requestWhen reads a condition that only a waypoint can tell.
func (c *conversion) requestWhen(a *attributes, w *api.Condition) {
	m, why := &a.request, c.blind()
	named := mesh.NamedMatch{}
	key, index, _ := strings.Cut(w.GetKey(), "[")
	switch {
	case w.GetKey() == "remote.ip":
		requestValues(a, w.Key, why, &m.RemoteIPs, w.GetValues(), ipBlock)
		requestValues(a, w.Key, why, &m.NotRemoteIPs, w.GetNotValues(), ipBlock)
		return
	case w.GetKey() == "request.auth.principal":
		requestValues(a, w.Key, c.blindToTokens(), &m.RequestPrincipals, w.GetValues(), text)
		requestValues(a, w.Key, c.blindToTokens(), &m.NotRequestPrincipals, w.GetNotValues(), text)
		return
	case w.GetKey() == "request.auth.audiences":
		named.Attribute, why = mesh.AttributeAudience, c.blindToTokens()
	case w.GetKey() == "request.auth.presenter":
		named.Attribute, why = mesh.AttributePresenter, c.blindToTokens()
	case w.GetKey() == "connection.sni":
		named.Attribute = mesh.AttributeSNI
	case key == "request.headers":
		named.Attribute, named.Name, why = mesh.AttributeHeader, inBrackets(index), firstOf(why, headerTrouble(inBrackets(index)))
	case key == "request.auth.claims":
		named.Attribute, named.Name, why = mesh.AttributeClaim, inBrackets(index), c.blindToTokens()
		if len(named.Name) == 0 {
			why = firstOf(why, "does not name a claim in brackets")
		}
	default:
		why = firstOf(why, "is not known here")
	}
	if why != "" {
		a.trouble = append(a.trouble, trouble{a.what, why})
		return
	}
	values(a, w.Key, &named.Values, w.GetValues(), text)
	values(a, w.Key, &named.NotValues, w.GetNotValues(), text)
	if len(named.Values)+len(named.NotValues) > 0 {
		m.Values = []mesh.NamedMatch{named}
	}
}

// inBrackets reads "a][b]", what follows the first bracket of "key[a][b]"; nil
// if it is not of that form.
func inBrackets(s string) []string {
	s, ok := strings.CutSuffix(s, "]")
	if !ok {
		return nil
	}
	parts := strings.Split(s, "][")
	for _, p := range parts {
		if p == "" || strings.ContainsAny(p, "[]") {
			return nil
		}
	}
	return parts
}

// headerTrouble says why a header cannot be asked about; empty if it can. Of
// the names with a colon, which HTTP/2 has for parts of a request, a path would
// be one with its query, and is better asked for by paths.
func headerTrouble(name []string) string {
	if len(name) != 1 {
		return "does not name a header in brackets"
	}
	if n := strings.ToLower(name[0]); n == ":authority" || n == ":method" {
		return ""
	}
	for _, c := range []byte(name[0]) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return "does not name a header in brackets"
		}
	}
	return ""
}

// pathPattern reads a path in the forms of text, or a template of Envoy's: {*}
// as a whole segment, {**} as a whole segment after all others. It is brought
// into the form in which waypoints compare paths, without which it would match
// none: that would open what a DENY closes.
func pathPattern(s string) ([]mesh.PathPattern, string) {
	if strings.Contains(s, "{*}") || strings.Contains(s, "{**}") {
		return pathTemplate(s)
	}
	m, why := text(s)
	if why != "" {
		return nil, why
	}
	whole := m[0].Op == mesh.OpExact || m[0].Op == mesh.OpSuffix
	if m[0].Value, why = pathText(m[0].Value, whole); why != "" {
		return nil, why
	}
	return []mesh.PathPattern{{StringMatch: m[0]}}, ""
}

func pathTemplate(s string) ([]mesh.PathPattern, string) {
	var out []string
	last := false
	segments := strings.Split(s, "/")
	for i, seg := range segments {
		switch {
		case i == 0 && seg != "":
			return nil, "is a template that does not begin with a slash"
		case seg == "" && 0 < i && i < len(segments)-1:
			continue // slashes in a row are one
		case seg == "{*}" || seg == "{**}":
			if last {
				return nil, "has an operator after {**}"
			}
			last = seg == "{**}"
		case strings.ContainsAny(seg, "*{}"):
			return nil, "has " + strconv.Quote(seg) + ", which is no segment of a template"
		default:
			var why string
			if seg, why = pathText(seg, true); why != "" {
				return nil, why
			}
		}
		out = append(out, seg)
	}
	return []mesh.PathPattern{{StringMatch: mesh.StringMatch{Value: strings.Join(out, "/")}, Template: true}}, ""
}

// pathText is text of a path in normal form. It is whole if its last segment
// is.
func pathText(s string, whole bool) (string, string) {
	normal, err := urlpath.Pattern(s)
	if err == nil && whole {
		_, err = urlpath.Pattern("/" + s + "/")
	}
	if err != nil {
		return "", "can never match: " + err.Error()
	}
	return normal, ""
}

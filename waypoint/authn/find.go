package authn

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// place is where a token may be.
type place struct {
	kind   placeKind
	name   string
	prefix string
}

type placeKind uint8

const (
	inHeader placeKind = iota
	inParam
	inCookie
)

// String is for errors.
func (p place) String() string {
	return [...]string{"header ", "parameter ", "cookie "}[p.kind] + p.name
}

// candidate is a text in the place of a token, with the rules that look there.
type candidate struct {
	place place
	text  string
	rules []*mesh.TokenRule
	order []int // of rules, among all
}

// placesOf are where a rule looks: if it does not say, in the Authorization
// header and in the query.
func placesOf(r *mesh.TokenRule) []place {
	if len(r.FromHeaders)+len(r.FromParams)+len(r.FromCookies) == 0 {
		return []place{{inHeader, "Authorization", "Bearer "}, {inParam, "access_token", ""}}
	}
	var out []place
	for _, h := range r.FromHeaders {
		out = append(out, place{inHeader, textproto.CanonicalMIMEHeaderKey(h.Name), h.Prefix})
	}
	for _, p := range r.FromParams {
		out = append(out, place{inParam, p, ""})
	}
	for _, c := range r.FromCookies {
		out = append(out, place{inCookie, c, ""})
	}
	return out
}

// find lists everything that stands in a place of a token.
func find(q *Request, rules []*mesh.TokenRule) []*candidate {
	var out []*candidate
	seen := map[place]bool{}
	for i, r := range rules {
		for _, p := range placesOf(r) {
			if !seen[p] {
				seen[p] = true
				for _, text := range p.read(q) {
					out = append(out, &candidate{place: p, text: text})
				}
			}
			for _, c := range out {
				if c.place == p {
					c.rules, c.order = append(c.rules, r), append(c.order, i)
				}
			}
		}
	}
	return out
}

// read gives what is there. The prefix is compared without case: a scheme that
// a backend takes for Bearer must not pass here for something else.
func (p place) read(q *Request) (out []string) {
	switch p.kind {
	case inHeader:
		for _, line := range q.Header[p.name] {
			if len(line) >= len(p.prefix) && strings.EqualFold(line[:len(p.prefix)], p.prefix) {
				out = append(out, strings.TrimSpace(line[len(p.prefix):]))
			}
		}
	case inParam:
		values, _ := url.ParseQuery(q.Query) // what cannot be read is no parameter to a backend either
		out = values[p.name]
	case inCookie:
		for _, c := range (&http.Request{Header: http.Header{"Cookie": q.Header["Cookie"]}}).CookiesNamed(p.name) {
			out = append(out, c.Value)
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// remove takes the token out of the request.
func (c *candidate) remove(q *Request) {
	switch p := c.place; p.kind {
	case inHeader:
		q.Header.Del(p.name)
	case inParam:
		q.Query = without(q.Query, "&", p.name)
	case inCookie:
		var lines []string
		for _, line := range q.Header["Cookie"] {
			if line = strings.TrimSpace(without(line, ";", p.name)); line != "" {
				lines = append(lines, line)
			}
		}
		if q.Header.Del("Cookie"); len(lines) > 0 {
			q.Header["Cookie"] = lines
		}
	}
}

// without drops the pairs of a name, and leaves the rest of the text as it is.
func without(text, separator, name string) string {
	var kept []string
	for part := range strings.SplitSeq(text, separator) {
		key, _, _ := strings.Cut(strings.TrimSpace(part), "=")
		if plain, err := url.QueryUnescape(key); separator == "&" && err == nil {
			key = plain
		}
		if key != name {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, separator)
}

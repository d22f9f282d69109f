package extauthz

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Edit changes a header, and a query.
type Edit struct {
	Set, Append http.Header
	Absent      http.Header // set where there is none
	Remove      []string

	SetQuery    []mesh.Header
	RemoveQuery []string
}

// Header applies the edit.
func (e *Edit) Header(h http.Header) {
	for _, name := range e.Remove {
		h.Del(name)
	}
	for name, values := range e.Set {
		h[name] = slices.Clone(values)
	}
	for name, values := range e.Absent {
		if len(h[name]) == 0 {
			h[name] = slices.Clone(values)
		}
	}
	for name, values := range e.Append {
		h[name] = append(h[name], values...)
	}
}

// Query applies the edit to a raw query, of which it leaves the rest as it is.
func (e *Edit) Query(raw string) string {
	drop := slices.Clone(e.RemoveQuery)
	for _, p := range e.SetQuery {
		drop = append(drop, p.Name)
	}
	if len(drop) == 0 {
		return raw
	}
	var kept []string
	for part := range strings.SplitSeq(raw, "&") {
		key, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(key); err == nil {
			key = plain
		}
		if part != "" && !slices.Contains(drop, key) {
			kept = append(kept, part)
		}
	}
	for _, p := range e.SetQuery {
		kept = append(kept, url.QueryEscape(p.Name)+"="+url.QueryEscape(p.Value))
	}
	return strings.Join(kept, "&")
}

// add puts a field that may be written into one of the edit's headers.
func add(to *http.Header, name, value string) {
	if !writable(name) || !httpguts.ValidHeaderFieldValue(value) {
		return
	}
	if *to == nil {
		*to = http.Header{}
	}
	to.Add(name, value)
}

// framing are the fields that say where a message ends and what the connection
// does, and the host: no provider may change them.
var framing = []string{
	"Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func writable(name string) bool {
	return httpguts.ValidHeaderFieldName(name) && !slices.Contains(framing, textproto.CanonicalMIMEHeaderKey(name))
}

// listed reports whether a header's name is in a provider's list.
func listed(list []mesh.StringMatch, name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(list, func(m mesh.StringMatch) bool {
		m.Value = strings.ToLower(m.Value)
		return m.Matches(name)
	})
}

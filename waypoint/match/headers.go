package match

import (
	"net/textproto"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// framing are the headers that say where a message ends and what becomes of
// its connection. Filters leave them alone.
var framing = []string{"Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func canonical(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }

// EditResponse applies a rule's or backend's edit to an answer's headers. Nil
// changes nothing.
func EditResponse(e *mesh.HeaderEdit, header map[string][]string) {
	if e == nil {
		return
	}
	for i, h := range e.Set {
		if key := canonical(h.Name); !named(e.Set[:i], h.Name) && !slices.Contains(framing, key) {
			header[key] = []string{h.Value}
		}
	}
	for i, h := range e.Add {
		if key := canonical(h.Name); !named(e.Add[:i], h.Name) && !slices.Contains(framing, key) {
			header[key] = append(slices.Clip(header[key]), h.Value)
		}
	}
	for _, name := range e.Remove {
		if key := canonical(name); !slices.Contains(framing, key) {
			delete(header, key)
		}
	}
}

// named reports whether a name was listed before: the first counts (Gateway
// API).
func named(list []mesh.Header, name string) bool {
	return slices.ContainsFunc(list, func(h mesh.Header) bool { return strings.EqualFold(h.Name, name) })
}

// EditRequest applies an edit to a request's headers and gives its host. Host
// is set like any header, but is never added a second time, nor removed: a
// request has exactly one.
func EditRequest(e *mesh.HeaderEdit, header map[string][]string, host string) string {
	if e == nil {
		return host
	}
	EditResponse(e, header)
	delete(header, "Host")
	if i := slices.IndexFunc(e.Set, isHost); i >= 0 {
		return e.Set[i].Value
	}
	return host
}

func isHost(h mesh.Header) bool { return strings.EqualFold(h.Name, "Host") }

package translate

import (
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// framing are the headers that say where a message ends and what becomes of
// its connection: a waypoint edits none of them.
var framing = []string{"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

// sendable reports whether a message may be given the headers of an edit.
func sendable(e *mesh.HeaderEdit) *wrong {
	for _, h := range slices.Concat(e.Set, e.Add) {
		switch {
		case !isToken(h.Name):
			return unsupported("header %q is no name", h.Name)
		case slices.Contains(framing, strings.ToLower(h.Name)):
			return unsupported("header %s belongs to the connection and cannot be edited", h.Name)
		case strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			return unsupported("the value of header %s has a control character", h.Name)
		case strings.EqualFold(h.Name, "Host") && (h.Value == "" || strings.ContainsFunc(h.Value, endsHost)):
			return unsupported("%q is no host", h.Value)
		}
	}
	return nil
}

// endsHost finds what would end a host within a URL.
func endsHost(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/\?#@"<>`, r) }

// askable reports whether a request may have a path: only then can a match of
// it hold, and a modifier make it.
func askable(path string) *wrong {
	if strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '?' || r == '#' }) {
		return unsupported("the path %q has a space, a control character, a ? or a #", path)
	}
	if _, err := url.PathUnescape(path); err != nil {
		return unsupported("the path %q has a %% without two hexadecimal digits", path)
	}
	return nil
}

// isToken is RFC 9110's form of names.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

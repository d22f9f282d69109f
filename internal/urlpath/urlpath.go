// Package urlpath owns the one normal form of the path of a URL: routes and
// policies compare it, and backends are asked for it. It keeps queries within
// their bounds, and refuses everything else of a URL. Called by the control
// plane for what authors write and by the waypoint for what clients send; pure.
package urlpath

import (
	"cmp"
	"errors"
	"strings"
)

// The reasons why a path has no normal form; such a request is answered 400.
var (
	errPathStart  = errors.New("path does not begin with a slash")
	errPathEscape = errors.New("path has a % without two hexadecimal digits")
	errPathByte   = errors.New("path has a space, a control character, a # or a ?")
	errPathDots   = errors.New("path has a segment . or .., which is resolved before paths are compared")
)

// Normalize gives the one form of an escaped path, without its query, so that
// nobody decides about one path while the backend serves another:
//
//   - escaped letters, digits, "-", ".", "_" and "~" are unescaped (RFC 3986
//     6.2.2.2); other escapes stay, with upper-case digits. %2F and %5C stay, so
//     they are data and never separate segments;
//   - bytes beyond ASCII and those that RFC 3986 has no place for are escaped;
//   - a backslash is a slash, as browsers and Envoy have it;
//   - slashes in a row are one, since most servers read them so, and a policy
//     for /admin must hold for //admin;
//   - then "." and ".." are resolved; above the root is the root.
//
// An empty path is "/"; "*" (of OPTIONS) stays. A path in normal form is
// returned as it is, without an allocation.
func Normalize(path string) (string, error) {
	if path == "" || path == "*" {
		return cmp.Or(path, "/"), nil
	}
	if path[0] != '/' && path[0] != '\\' {
		return "", errPathStart
	}
	if isNormal(path) {
		return path, nil
	}
	escaped, err := normalEscapes(path)
	if err != nil {
		return "", err
	}
	return resolve(escaped), nil
}

// isNormal is a quick look that may only err on the side of false.
func isNormal(path string) bool {
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '/':
			if i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') {
				return false
			}
		case !plain[c]:
			return false
		}
	}
	return true
}

// plain are the bytes that stand for themselves in a path: RFC 3986's pchar
// and the slash.
var plain = func() (set [256]bool) {
	for c := range set {
		set[c] = unreserved(byte(c)) || strings.IndexByte("!$&'()*+,;=:@/", byte(c)) >= 0
	}
	return set
}()

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

const upperHex = "0123456789ABCDEF"

// normalEscapes gives every byte its one form.
func normalEscapes(path string) (string, error) {
	out := make([]byte, 0, len(path)+8)
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case plain[c]:
			out = append(out, c)
		case c == '\\':
			out = append(out, '/')
		case c == '%':
			if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
				return "", errPathEscape
			}
			if d := unhex(path[i+1])<<4 | unhex(path[i+2]); unreserved(d) {
				out = append(out, d)
			} else {
				out = append(out, '%', upperHex[d>>4], upperHex[d&15])
			}
			i += 2
		case c <= ' ' || c == 0x7f || c == '#' || c == '?':
			return "", errPathByte
		default:
			out = append(out, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(out), nil
}

// Pattern brings text that authors compare paths with into the form that paths
// have, so that what they wrote can match at all: escapes and slashes. It may be
// a part of a path, so a "." or ".." is refused only where it is surely a whole
// segment, which no path in normal form has.
func Pattern(text string) (string, error) {
	escaped, err := normalEscapes(text)
	if err != nil {
		return "", err
	}
	for strings.Contains(escaped, "//") {
		escaped = strings.ReplaceAll(escaped, "//", "/")
	}
	if strings.Contains(escaped, "/./") || strings.Contains(escaped, "/../") {
		return "", errPathDots
	}
	return escaped, nil
}

// resolve merges slashes and resolves dot segments. A last "." or ".." names
// a directory, so its slash stays (RFC 3986 5.2.4).
func resolve(path string) string {
	kept := make([]string, 0, 16)
	directory := false
	for seg := range strings.SplitSeq(path, "/") {
		directory = seg == "" || seg == "." || seg == ".."
		switch {
		case seg == "..":
			kept = kept[:max(0, len(kept)-1)]
		case !directory:
			kept = append(kept, seg)
		}
	}
	joined := "/" + strings.Join(kept, "/")
	if directory && len(kept) > 0 {
		joined += "/"
	}
	return joined
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

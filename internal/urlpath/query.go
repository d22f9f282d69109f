package urlpath

import "strings"

// Query escapes what has no place in a query and would end it, or the line that
// it is sent in: spaces, controls, bytes beyond ASCII, # and those that
// browsers escape. HTTP/2 carries them raw. All else stays as the client wrote
// it, since its programs may have their own idea of a query. One without such
// bytes is returned as it is, without an allocation.
func Query(raw string) string {
	i := strings.IndexFunc(raw, endsQuery)
	if i < 0 {
		return raw
	}
	out := append(make([]byte, 0, len(raw)+16), raw[:i]...)
	for ; i < len(raw); i++ {
		if c := raw[i]; endsQuery(rune(c)) {
			out = append(out, '%', upperHex[c>>4], upperHex[c&15])
		} else {
			out = append(out, c)
		}
	}
	return string(out)
}

func endsQuery(r rune) bool {
	return r <= ' ' || r >= 0x7f || r == '#' || r == '"' || r == '<' || r == '>'
}

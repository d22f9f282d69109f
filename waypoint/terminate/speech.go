package terminate

import (
	"bytes"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// speech is what a connection is taken to speak.
type speech uint8

const (
	speechUnknown speech = iota
	speechHTTP
	speechTLS
	speechTCP
)

// speech decides by what is declared.
func (c *crossing) speech() speech {
	routes := match.ProtocolUnknown
	if c.dst.service != nil {
		routes = c.table.Routes(c.dst.service.Key(), c.dst.port).Protocol(c.peer.ID)
	}
	return speechOf(c.dst.app, routes)
}

// speechOf is what a port's declaration says, before what its routes do: a port
// of other bytes is never read as HTTP because a route without a port covers it.
func speechOf(app mesh.AppProtocol, routes match.Protocol) speech {
	switch app {
	case mesh.AppHTTP11, mesh.AppHTTP2, mesh.AppGRPC:
		return speechHTTP
	case mesh.AppTCP, mesh.AppTLS:
		if routes == match.ProtocolTLS {
			return speechTLS
		}
		return speechTCP
	case mesh.AppUnknown:
	}
	switch routes {
	case match.ProtocolHTTP, match.ProtocolGRPC:
		return speechHTTP
	case match.ProtocolTLS:
		return speechTLS
	case match.ProtocolTCP:
		return speechTCP
	case match.ProtocolUnknown:
	}
	return speechUnknown
}

// looks is what a connection's first bytes look like.
type looks uint8

const (
	looksUnfinished looks = iota // a request may begin so
	looksHTTP
	looksOther
)

const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// maxLine is the longest request line that is waited for.
	maxLine   = 16 << 10
	maxMethod = 32
)

// look tells requests from other bytes by the whole request line: other
// protocols also begin with a word in capitals.
func look(b []byte) looks {
	if n := min(len(b), len(preface)); string(b[:n]) == preface[:n] {
		if n == len(preface) {
			return looksHTTP
		}
		return looksUnfinished
	}
	line, _, whole := bytes.Cut(b, []byte("\n"))
	if whole {
		line = bytes.TrimSuffix(line, []byte("\r"))
		if isMethod(line, true) && (bytes.HasSuffix(line, []byte(" HTTP/1.1")) || bytes.HasSuffix(line, []byte(" HTTP/1.0"))) {
			return looksHTTP
		}
		return looksOther
	}
	if isMethod(line, false) && len(line) < maxLine {
		return looksUnfinished
	}
	return looksOther
}

// isMethod says whether a line begins with a method and a space; unless it is
// whole, both may still be coming.
func isMethod(line []byte, whole bool) bool {
	for i, c := range line {
		switch {
		case c == ' ':
			return i > 0 && (whole || target(line[i+1:]))
		case i == maxMethod || (c < 'A' || c > 'Z') && c != '-' && c != '_':
			return false
		}
	}
	return !whole
}

// target says whether the target of a request may begin so.
func target(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	c := b[0]
	return c == '/' || c == '*' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '['
}

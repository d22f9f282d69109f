package head

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// requestPseudo are the pseudo headers that a request may have.
var requestPseudo = []string{":method", ":scheme", ":authority", ":path", ":protocol"}

// malformed says what makes a request one that must be reset (RFC 9113, 8.2 and
// 8.3; RFC 9114, 4.1.2).
func (b *Block) malformed() string {
	if b.invalid != "" {
		return "invalid " + b.invalid
	}
	for name := range b.Pseudo {
		if !slices.Contains(requestPseudo, name) {
			return "pseudo header that is no request's"
		}
	}
	for _, name := range []string{"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"} {
		if _, ok := b.Header[name]; ok {
			return "header of a connection: " + name
		}
	}
	if te, ok := b.Header["te"]; ok && te != "trailers" {
		return "te other than trailers"
	}
	return ""
}

// Request reads a CONNECT. A status other than 0 is the answer to something
// else; malformed is for a reset.
func (b *Block) Request() (r hbone.Request, status int, reason string, malformed string) {
	_, scheme := b.Pseudo[":scheme"]
	_, path := b.Pseudo[":path"]
	_, extended := b.Pseudo[":protocol"]
	switch wrong := b.malformed(); {
	case wrong != "":
		return r, 0, "", wrong
	case b.tooLong:
		return r, 431, "header list too long", ""
	case b.Pseudo[":method"] == "":
		return r, 0, "", "request without method"
	case b.Pseudo[":method"] != "CONNECT" && (b.Pseudo[":scheme"] == "" || b.Pseudo[":path"] == ""):
		return r, 0, "", "request without scheme or path"
	case b.Pseudo[":method"] != "CONNECT":
		return r, hbone.StatusBadRequest, "only CONNECT is served", ""
	case extended:
		return b.udp()
	case scheme || path:
		return r, 0, "", "CONNECT with scheme or path"
	case b.Pseudo[":authority"] == "":
		return r, hbone.StatusBadRequest, "CONNECT without authority", ""
	}
	return hbone.Request{Authority: b.Pseudo[":authority"], Header: b.Header}, 0, "", ""
}

// udp reads an extended CONNECT (RFC 8441, 4; RFC 9298, 3.4).
func (b *Block) udp() (r hbone.Request, status int, reason string, malformed string) {
	for _, name := range []string{":scheme", ":authority", ":path"} {
		if b.Pseudo[name] == "" {
			return r, 0, "", "extended CONNECT without " + name
		}
	}
	if p := b.Pseudo[":protocol"]; p != hbone.ProtocolUDP {
		return r, hbone.StatusBadRequest, "extended CONNECT is served for UDP only", ""
	}
	target, ok := target(b.Pseudo[":path"])
	if !ok {
		return r, hbone.StatusBadRequest, "path that names no target of UDP", ""
	}
	delete(b.Header, capsules)
	return hbone.Request{Protocol: hbone.ProtocolUDP, Authority: target, Header: b.Header}, 0, "", ""
}

// Response reads an answer; interim ones (1xx) are not ok.
func (b *Block) Response() (r hbone.Response, ok bool, err error) {
	status, e := strconv.Atoi(b.Pseudo[":status"])
	switch {
	case b.invalid != "":
		return r, false, fmt.Errorf("answer with invalid %s", b.invalid)
	case b.tooLong:
		return r, false, fmt.Errorf("answer with a header list over %d bytes", b.limit)
	case e != nil || status < 100 || status > 999:
		return r, false, fmt.Errorf("answer with status %q", b.Pseudo[":status"])
	}
	return hbone.Response{Status: status, Header: b.Header}, status >= 200, nil
}

package exchange

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// hop are the headers of one connection, which go no further (RFC 9110 7.6.1).
var hop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "Http2-Settings",
}

// dropHop removes them, with those that Connection names.
func dropHop(h http.Header) {
	dropNamed(h)
	for _, name := range hop {
		delete(h, name)
	}
}

// dropNamed removes the headers that Connection names, but those above. With
// requests this comes before anything is written into their header: a client
// must not name what providers and verified tokens say of it.
func dropNamed(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			name = textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))
			if name != "" && !slices.Contains(hop, name) {
				delete(h, name)
			}
		}
	}
}

// The headers that a waypoint writes.
const (
	forwardedFor   = "X-Forwarded-For"
	forwardedProto = "X-Forwarded-Proto"
	requestID      = "X-Request-Id"
	// clientCert speaks of a certificate that only this waypoint has seen: what a
	// client says there is not passed on.
	clientCert = "X-Forwarded-Client-Cert"
)

// takeHeader makes the header that goes on.
func (e *exchange) takeHeader() *reply {
	in := e.r.Header
	h := in.Clone()
	delete(h, "Host") // HTTP/2 may have one beside its authority, which counts
	trailers := httpguts.HeaderValuesContainsToken(in["Te"], "trailers")
	delete(h, "Connection") // what it named is gone already
	dropHop(h)
	if trailers {
		h["Te"] = []string{"trailers"}
	}
	if e.upgrade != "" {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{e.upgrade}
	}
	delete(h, clientCert)
	client := e.arrival.Source.Addr().Unmap().String()
	h[forwardedFor] = []string{strings.Join(append(h[forwardedFor], client), ", ")}
	if len(h[forwardedProto]) == 0 {
		h[forwardedProto] = []string{"http"}
	}
	if len(h[requestID]) == 0 {
		h[requestID] = []string{newRequestID()}
	}
	e.header = h
	return nil
}

// upgradeOf is the protocol a client wants to change to, if it is one that goes
// through here. HTTP/2 does not: its requests would pass by unseen.
func upgradeOf(r *http.Request) string {
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 || !httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") {
		return ""
	}
	to := r.Header["Upgrade"]
	if len(to) != 1 {
		return ""
	}
	if !passesUpgrade(to[0]) {
		return ""
	}
	return strings.TrimSpace(to[0])
}

// passesUpgrade says whether a value of Upgrade names one protocol that may
// pass.
func passesUpgrade(value string) bool {
	name, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(value)), "/")
	switch name {
	case "", "h2c", "h2", "http", "tls":
		return false
	}
	return !strings.Contains(value, ",")
}

// newRequestID is a random UUID (RFC 9562, version 4).
func newRequestID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], rand.Uint64())
	binary.BigEndian.PutUint64(b[8:], rand.Uint64())
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := make([]byte, 0, 36)
	for i, part := range [...][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if i > 0 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, part)
	}
	return string(text)
}

package policy

import (
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Connection is what a policy may ask about at L4.
type Connection struct {
	// Source is the peer's identity from TLS; zero for plaintext.
	Source   spiffe.ID
	SourceIP netip.Addr
	// Destination is the real upstream: pod address and container port. At a
	// waypoint, where policies come before routing, it is the service's.
	Destination netip.AddrPort
}

// Request is what a policy may ask about at a waypoint.
type Request struct {
	Connection
	// RemoteIP is the client's address as trusted proxies in front tell it, see
	// RemoteAddress; invalid is SourceIP.
	RemoteIP netip.Addr
	// SNI is the name in a TLS connection that passes through.
	SNI string
	// HTTP is nil for a connection that is not HTTP.
	HTTP *HTTP
	// Asked says that the providers of all Asks have let it pass.
	Asked bool
}

// HTTP is what is known of a request itself.
type HTTP struct {
	Method string
	// Path is normalized, without the query.
	Path string
	// Host is the authority, with its port if it has one.
	Host string
	// Header has net/http's canonical names.
	Header map[string][]string
	// Token is the verified token; nil is none.
	Token *Token
}

// Token is what a verified token says of the end user.
type Token struct {
	// Principal is "<issuer>/<subject>".
	Principal string
	Audiences []string
	// Presenter is the claim azp.
	Presenter string
	// Claims is the decoded payload: text, json.Number, bool, lists and maps of
	// them. What is a list by spaces is a list here.
	Claims map[string]any
}

// tidy gives addresses one form, since a block contains only one of them.
func (q *Request) tidy() {
	q.SourceIP = plain(q.SourceIP)
	q.RemoteIP = plain(q.RemoteIP)
	if !q.RemoteIP.IsValid() {
		q.RemoteIP = q.SourceIP
	}
	q.Destination = netip.AddrPortFrom(plain(q.Destination.Addr()), q.Destination.Port())
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// RemoteAddress is the client's address: with hops trusted proxies in front,
// the one that the outermost of them wrote into X-Forwarded-For, whose lines
// are forwarded. Without trusted proxies it is the peer's own, whatever is
// written there. A list that is too short or cannot be read gives the peer's
// address too: nobody in it is believed.
func RemoteAddress(peer netip.Addr, forwarded []string, hops int) netip.Addr {
	if hops <= 0 {
		return peer
	}
	for i := len(forwarded) - 1; i >= 0; i-- {
		for rest, more := forwarded[i], true; more; {
			entry := rest
			at := strings.LastIndexByte(rest, ',')
			if more = at >= 0; more {
				rest, entry = rest[:at], rest[at+1:]
			}
			if hops--; hops > 0 {
				continue
			}
			if a, err := netip.ParseAddr(strings.TrimSpace(entry)); err == nil {
				return a
			}
			return peer
		}
	}
	return peer
}

// principalParts are the text of an identity without building it.
func principalParts(id spiffe.ID) [5]string {
	return [5]string{id.TrustDomain, "/ns/", id.Namespace, "/sa/", id.ServiceAccount}
}

// matchesPrincipal is m.Matches(id.Principal()) without allocating the text.
func matchesPrincipal(m mesh.StringMatch, id spiffe.ID) bool {
	parts := principalParts(id)
	rest := m.Value
	switch m.Op {
	case mesh.OpPresence:
		return true
	case mesh.OpSuffix:
		for i := len(parts) - 1; i >= 0; i-- {
			if len(rest) <= len(parts[i]) {
				return strings.HasSuffix(parts[i], rest)
			}
			var ok bool
			if rest, ok = strings.CutSuffix(rest, parts[i]); !ok {
				return false
			}
		}
		return rest == ""
	}
	for _, part := range parts {
		if m.Op == mesh.OpPrefix && len(rest) <= len(part) {
			return strings.HasPrefix(part, rest)
		}
		var ok bool
		if rest, ok = strings.CutPrefix(rest, part); !ok {
			return false
		}
	}
	return rest == ""
}

// Package route decides where a connection goes and whether it may come in:
// pure functions of a view.View and what is known of the connection.
//
// It owns the order of the lookups, the choice of an endpoint, the checks of a
// CONNECT's authority, and the reasons given. It refuses sockets, and never
// opens what it cannot resolve: a waypoint, a policy or a service that is named
// and not there closes the connection. Called by ztunnel/outbound,
// ztunnel/inbound and ztunnel/connections.
package route

import (
	"fmt"
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Kind is what to do with an outbound connection.
type Kind uint8

// The kinds. The zero value closes the connection.
const (
	Refuse Kind = iota
	// Passthrough is plain TCP to the original destination, which is none of
	// the mesh's.
	Passthrough
	// Plain is plain TCP to a chosen endpoint.
	Plain
	// HBONE is a tunnel to Dial with a CONNECT to Authority.
	HBONE
)

// String is for logs.
func (k Kind) String() string {
	return [...]string{"refuse", "passthrough", "plain", "hbone"}[k&3]
}

// OutboundDecision is where a captured connection goes.
type OutboundDecision struct {
	Kind Kind
	// Dial is the TCP address, or with HBONE the address of the tunnel.
	Dial netip.AddrPort
	// Host is set, with Plain, for an endpoint that is known by name only: the
	// caller finds its address, and the port is Dial's, whose address stands for
	// the name.
	Host string
	// Authority is what the CONNECT asks for; HBONE only.
	Authority string
	// Accept are the identities the tunnel's server may have; HBONE only.
	Accept []spiffe.ID
	// OverH3 is whether the tunnel is to be made over HTTP/3 if that gets through;
	// HBONE only.
	OverH3 bool
	// Workload is the one dialled, the waypoint's if there is one; nil with
	// Passthrough.
	Workload *mesh.Workload
	// Service is the one addressed, if one was.
	Service *mesh.Service
	// Endpoint is the chosen pod's address and port for the application; the
	// tunnel's address when it leads to a waypoint.
	Endpoint netip.AddrPort
	// Waypoint says that the connection goes through one.
	Waypoint bool
	// Others says that there are more endpoints to choose from.
	Others bool
	// Pending, with Refuse, says that only a waypoint is missing or not ready:
	// the caller may wait for a newer View and ask again.
	Pending bool
	// Outlawed, with Refuse, says that the destination is not of the mesh and
	// the sender may reach nothing else.
	Outlawed bool
	// Reason is one line for logs; always set with Refuse.
	Reason string
}

// InboundRequest is a connection that arrived at a local pod.
type InboundRequest struct {
	// Authority is what the CONNECT asks for; empty for plaintext.
	Authority string
	// ConnDst is the address the peer connected to: for plaintext the original
	// destination.
	ConnDst netip.AddrPort
	// Source is the peer's identity by its certificate; ignored for plaintext.
	Source spiffe.ID
	// SourceIP is the TCP peer's address.
	SourceIP netip.Addr
	// Host is the service hostname that the peer says it meant (header
	// forwarded), if any. It only names the service for telemetry, and only
	// if the pod is one of its endpoints.
	Host string
	// Datagrams says that UDP arrives, and not a connection.
	Datagrams bool
}

// InboundDecision is the answer to an arrival.
type InboundDecision struct {
	// Status is 200 to go on, otherwise the answer to the CONNECT; plaintext
	// connections are then closed.
	Status int
	// Upstream is the application's address.
	Upstream netip.AddrPort
	// Verdict is set when policy was asked: Status 200 or 401.
	Verdict policy.Verdict
	// Service is the one that the connection was for, as far as it shows.
	Service *mesh.Service
	// Reason is one line for logs and, with HBONE, for the peer.
	Reason string
}

// At is what is dialled, in words.
func (d *OutboundDecision) At() string {
	if d.Host == "" {
		return d.Dial.String()
	}
	return fmt.Sprintf("%s:%d", d.Host, d.Dial.Port())
}

// named stands for a name where an address is wanted: nothing has it, and it
// differs for each name.
func named(host string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv6Unspecified().WithZone(host), port)
}

// illegal are the ports of the proxy itself: a connection to one of them that
// the proxy makes would come back to the proxy.
func illegal(port uint16) bool {
	return port == 15001 || port == 15006 || port == hbone.Port
}

func refuse(format string, args ...any) OutboundDecision {
	return OutboundDecision{Kind: Refuse, Reason: fmt.Sprintf(format, args...)}
}

// plain gives an address its one form.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

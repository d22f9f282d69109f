package telemetry

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Direction is which end of a connection this proxy serves.
type Direction uint8

// The directions. A waypoint stands between the ends, and speaks for the
// destination.
const (
	Inbound Direction = iota
	Outbound
	Waypoint
	directionCount
)

// String is the access log's word.
func (d Direction) String() string {
	return [directionCount]string{"inbound", "outbound", "waypoint"}[d]
}

// reporter is the metrics' word for the same.
func (d Direction) reporter() string {
	return [directionCount]string{"destination", "source", "waypoint"}[d]
}

// Flow is what is known of a connection. Everything but Direction may be
// missing.
type Flow struct {
	// ID is the decision's short id, the same at both ends of a tunnel.
	ID        string
	Direction Direction
	// Datagrams says that it is a flow of UDP and no connection of TCP.
	Datagrams           bool
	Source, Destination *mesh.Workload
	Service             *mesh.Service
	// SourceID and DestinationID are set only by mutual TLS.
	SourceID, DestinationID spiffe.ID
	// SourceAddr is the client as this proxy sees it.
	SourceAddr netip.AddrPort
	// DestinationAddr is what was dialled: outbound the peer's HBONE port or
	// the application itself, inbound the address the tunnel came to.
	DestinationAddr netip.AddrPort
	// HBONEAddr is the authority of a tunnelled connection.
	HBONEAddr string
	// TraceParent correlates the records of both ends.
	TraceParent string
	// Route is what a waypoint followed, by which configuration.
	Route      mesh.RouteKey
	Generation uint64
}

// Flag is Istio's response flag: how a connection ended.
type Flag uint8

// The flags, in the order of dataplane spec 7.3.
const (
	FlagNone Flag = iota
	FlagDeny
	FlagConnect
	FlagTLSFailure
	FlagHandshakeFailure
	FlagNetworkPolicy
	FlagIdentityError
	flagCount
)

// String is the label's value.
func (f Flag) String() string {
	return [flagCount]string{"-", "DENY", "CONNECT", "TLS_FAILURE", "H2_HANDSHAKE_FAILURE", "NETWORK_POLICY", "IDENTITY_ERROR"}[f]
}

// Outcome is how a connection ended.
type Outcome struct {
	Flag Flag
	// Cut is why the proxy itself ended it.
	Cut Cut
	// Err is nil for a connection that ended well. Without a flag it is noted,
	// but no failure of the mesh's.
	Err error
	// Policy decided; empty if none did.
	Policy mesh.PolicyKey
	// Reason is the verdict in words, at the source as the destination told it.
	Reason string
}

// Counter reads a running connection's bytes.
type Counter interface {
	// Load gives the bytes from client to server and back.
	Load() (toServer, toClient uint64)
}

// DatagramCounter is the Counter of a flow of datagrams.
type DatagramCounter interface {
	Counter
	// Datagrams is how many datagrams the bytes came in.
	Datagrams() (toServer, toClient uint64)
}

// Package xds owns the delta xDS protocol on both sides: the client that
// ztunnel and waypoint run, and the server that istiod-lite/push feeds.
// It refuses to know what a resource means: bodies are opaque bytes here, and
// internal/wire reads and writes them.
package xds

import "context"

// Type URLs (dataplane spec 4.3).
const (
	TypeAddress       = "type.googleapis.com/istio.workload.Address"
	TypeAuthorization = "type.googleapis.com/istio.security.Authorization"
	// TypeWaypoint is ours: what only waypoints need, one resource for each
	// route, policy, and so on, told apart by the names (internal/wire).
	TypeWaypoint = "type.googleapis.com/ambit.waypoint.Resource"
)

// MetadataGateway is the key of node metadata in which a waypoint names its
// Gateway.
const MetadataGateway = "GATEWAY_NAME"

// Resource is one named resource in its wire form.
type Resource struct {
	Name string
	// Version is a content hash; equal versions mean equal bodies.
	Version string
	// Aliases are further keys by which a client may ask for it.
	Aliases []string
	// Follows are names of resources of the same type (and NodeKeys) whose
	// on-demand subscribers need this one too. It is not on the wire.
	Follows []string
	// Body is the marshalled message, without its Any.
	Body []byte
}

// Update is one response as the client got it.
type Update struct {
	Type string
	// Generation is the server's newest when it sent this; 0 if it counts in
	// another way.
	Generation uint64
	Upserts    []Resource
	Removed    []string
}

// Rejection is one resource the client would not take, with the reason that
// goes into the NACK.
type Rejection struct {
	Name   string
	Reason error
}

// Receiver applies updates, in the order of their arrival and one at a time.
// It takes what it can and returns the rest.
type Receiver interface {
	Receive(ctx context.Context, u Update) []Rejection
}

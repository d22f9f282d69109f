package mesh

import (
	"fmt"
	"strings"
	"time"
)

// RouteKind is the kind of the object that a route was written as, in the
// order in which kinds win one port (GEP-1294).
type RouteKind uint8

// The kinds of routes.
const (
	RouteGRPC RouteKind = iota
	RouteHTTP
	RouteTLS
	RouteTCP
)

// String is the kind's name in the Gateway API.
func (k RouteKind) String() string {
	return [...]string{"GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute"}[k&3]
}

// RouteKey names a route; its text form is "kind/namespace/name".
type RouteKey struct {
	Kind            RouteKind
	Namespace, Name string
}

// ParseRouteKey reads "kind/namespace/name".
func ParseRouteKey(s string) (RouteKey, error) {
	parts := strings.Split(s, "/")
	if len(parts) == 3 && parts[1] != "" && parts[2] != "" {
		for k := RouteGRPC; k <= RouteTCP; k++ {
			if k.String() == parts[0] {
				return RouteKey{k, parts[1], parts[2]}, nil
			}
		}
	}
	return RouteKey{}, fmt.Errorf("route key %q: want kind/namespace/name", s)
}

// String is "kind/namespace/name".
func (k RouteKey) String() string { return k.Kind.String() + "/" + k.Namespace + "/" + k.Name }

// IsZero reports whether no route is named.
func (k RouteKey) IsZero() bool { return k == RouteKey{} }

// Route is one HTTPRoute, GRPCRoute, TLSRoute or TCPRoute as far as it is
// attached to services: parents that did not accept it are left out, and with
// none left there is no Route. Backends are resolved or marked Invalid.
type Route struct {
	Key RouteKey
	// Created is the object's creation, in seconds since 1970: of two equal
	// matches the older route's wins, then the one whose key comes first.
	Created int64
	// Generation is the object's own, for explanations.
	Generation int64
	Parents    []RouteParent
	Rules      []RouteRule
}

// RouteParent is a service that a route is attached to.
type RouteParent struct {
	Service ServiceKey
	// Port is the service port, 0 for all of them.
	Port uint16
}

// Consumer reports whether the route speaks only for clients of its own
// namespace: one that is attached to a service of another (GEP-1294).
func (r *Route) Consumer(p RouteParent) bool { return r.Key.Namespace != p.Service.Namespace }

// RouteRule is one rule. TLS and TCP routes use only Name, Backends and, of a
// TLS route, SNI.
type RouteRule struct {
	// Name is the user's name of the rule, often empty.
	Name string
	// Index is the rule's place among the user's, for explanations: rules that
	// can match nothing are left out of a Route.
	Index int
	// Matches are alternatives; none matches every request.
	Matches  []RequestMatch
	SNI      []string
	Filters  Filters
	Backends []Backend
	// RequestTimeout bounds the whole exchange with all tries, BackendTimeout
	// each try (GEP-1742). Zero is none.
	RequestTimeout, BackendTimeout time.Duration
	// Retry is nil without retries that the user asked for.
	Retry *Retry
	// Persistence is nil without session persistence (GEP-1619).
	Persistence *Persistence
}

// RequestMatch holds when all its parts do.
type RequestMatch struct {
	Path PathMatch
	// Method is exact; empty is any.
	Method string
	// Call is set by a GRPCRoute in Path's and Method's place.
	Call *CallMatch
	// Headers and Query hold for the first value of a name.
	Headers, Query []ValueMatch
}

// PathOp is how a path is compared.
type PathOp uint8

// The comparisons of paths. The zero value matches every path.
const (
	PathAny PathOp = iota
	PathExact
	// PathPrefix compares by whole segments.
	PathPrefix
	// PathRegex is an RE2 expression that must match the whole path.
	PathRegex
)

// PathMatch compares a request's path, without its query.
type PathMatch struct {
	Op    PathOp
	Value string
}

// ValueMatch compares a named value exactly or by an RE2 expression that must
// match all of it. Header names are compared without case.
type ValueMatch struct {
	Name, Value string
	Regex       bool
}

// CallMatch compares the gRPC service and method; an empty one is any. Regex
// makes both RE2 expressions that must match the whole name.
type CallMatch struct {
	Service, Method string
	Regex           bool
}

// Filters are what happens to a request on its way. Of each there is at most
// one, except mirrors (Gateway API).
type Filters struct {
	// Request and Response edit headers.
	Request, Response *HeaderEdit
	Redirect          *Redirect
	Rewrite           *Rewrite
	Mirrors           []Mirror
	CORS              *CORS
}

// HeaderEdit changes headers: set, then add, then remove.
type HeaderEdit struct {
	Set, Add []Header
	Remove   []string
}

// Header is one header field.
type Header struct{ Name, Value string }

// PathEditOp is how a path is changed.
type PathEditOp uint8

// The changes of a path.
const (
	PathReplaceFull PathEditOp = iota
	// PathReplacePrefix replaces the prefix that the rule's one match matched.
	PathReplacePrefix
)

// PathEdit changes a path.
type PathEdit struct {
	Op    PathEditOp
	Value string
}

// Redirect answers with a Location. Empty parts stay as the request has them;
// the port follows gateway-api-conformance spec 7.
type Redirect struct {
	Scheme, Host string
	Path         *PathEdit
	Port         uint16
	// Status is 301, 302, 303, 307 or 308.
	Status int
}

// Rewrite changes what the backend is asked for.
type Rewrite struct {
	Host string
	Path *PathEdit
}

// Mirror sends a copy of requests to one endpoint of a service and drops the
// answer (GEP-3171). Of Denominator requests, Numerator are copied.
type Mirror struct {
	Backend                Backend
	Numerator, Denominator int32
}

// CORS is cross-origin resource sharing (GEP-1767).
type CORS struct {
	// AllowOrigins are exact, "*", or with "*" as the first label of the host.
	AllowOrigins     []string
	AllowCredentials bool
	AllowMethods     []string
	AllowHeaders     []string
	ExposeHeaders    []string
	MaxAge           time.Duration
}

// Backend is a service's port with a weight.
type Backend struct {
	Service ServiceKey
	Port    uint16
	// Weight is its share; 0 is never chosen.
	Weight uint32
	// Invalid says why the reference leads nowhere. Its share is answered 500
	// (gRPC: UNAVAILABLE), never given to others.
	Invalid string
	// Filters run only when this backend is chosen: Request and Response edits.
	Filters Filters
}

// Retry is how often and when a request is tried again (GEP-1731).
type Retry struct {
	// Attempts come in addition to the first; 0 is no retry.
	Attempts int
	// Codes are the statuses that are retried, beside failures to connect.
	Codes []int
	// Backoff is the least pause before a retry; zero is 25 ms.
	Backoff time.Duration
}

// Persistence keeps a session with one endpoint (GEP-1619).
type Persistence struct {
	// Name is that of the cookie or header.
	Name string
	// Header is set where a header carries the session, not a cookie.
	Header bool
	// Absolute and Idle end a session; zero is never.
	Absolute, Idle time.Duration
	// Permanent makes the cookie outlive the client's session, for Absolute.
	Permanent bool
}

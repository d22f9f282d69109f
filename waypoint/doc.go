// Package waypoint is the root of the optional per-namespace proxy that routes,
// protects and observes at L7. It will own the Gateway API's routes on the
// request path; it refuses L4 capture, which is ztunnel's, and Kubernetes
// objects, which are istiod-lite's.
//
// Nothing runs here yet: a service that names a waypoint is refused by ztunnel
// with that reason, because a named waypoint that is missing must not be
// skipped (architecture, decision 2).
package waypoint

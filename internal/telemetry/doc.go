// Package telemetry owns what the mesh says about connections and requests:
// Istio's metrics of both, the access log with one record each, and the baggage
// that describes a workload to its peer (dataplane spec 1.3, 7.2-7.4).
//
// It refuses to decide anything, and to hold what nobody uses: series that
// have been idle expire and their number is bounded. ztunnel's inbound and
// outbound and waypoint's exchange call it; serving the metrics is
// internal/admin's.
package telemetry

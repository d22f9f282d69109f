// Package tracing owns the spans of requests, one for the request and one for
// each try at a backend, and of tunnelled connections, one at each end; they are
// sent over OTLP by the OpenTelemetry SDK. It owns the trace contexts that come
// with requests and go on with them (W3C's, and B3 in both forms).
//
// It refuses to name what happened, which telemetry.Exchange does, and to be in
// the way: a nil Tracer is tracing switched off, leaves headers as they are and
// costs nothing, and spans that a collector does not take are dropped.
// waypoint/exchange and ztunnel's inbound and outbound call it.
package tracing

// Package relay copies between the two ends of a proxied connection until both
// directions have ended: TCP to a tunnel's stream, and TCP to TCP by splice.
//
// It owns the meaning of an end: a half-close becomes a half-close, a reset a
// reset, in both directions, also when the reset comes after a half-close. It
// refuses to know who may be connected; policy closes a connection by ending
// its context. ztunnel's inbound and outbound, and the waypoint, call it.
package relay

// Package terminate accepts the CONNECTs of a waypoint's tunnels, and finds out
// where each connection goes and what it speaks.
//
// It owns the door: only services, ports and workloads whose waypoint this is
// may be reached through it (a waypoint is no open relay), and HTTP is told from
// other bytes without ever delaying a server that speaks first. Requests it hands
// to waypoint/exchange; other bytes it carries itself, by the rules of TCP and
// TLS routes, and cuts what a later policy denies. It refuses to terminate TLS.
// waypoint's root calls it.
package terminate

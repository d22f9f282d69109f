// Package balance chooses the endpoint of a request, and keeps what is known of
// each: requests in flight, latency, and its circuit (waypoint/circuit).
//
// It owns the choice among a service's endpoints, the bounds on what goes to a
// service, and the breaker's leave to eject. It refuses to resolve a service,
// to open a connection and to try again: waypoint/exchange asks with [Balancer.Pick],
// tells the end with [Choice.Done], and asks again. What it knows is this
// waypoint's alone, as in Envoy.
//
// # The choice
//
// An endpoint is usable if it serves the port, is ready (or the service
// publishes what is not), has a capacity above 0, is in this network, and has an
// address of the service's family. It is taken with a chance in proportion to
// its capacity, less while its circuit ramps up or it warms up.
//
//   - Least, the default: of two, the one with fewer requests in flight and the
//     lower latency is preferred, not always taken: with (n+1)⁴·latency², so
//     that a slow endpoint is asked seldom, and never forgotten.
//   - RoundRobin, Random: as named; round robin interleaves by capacity.
//   - Hash: a ring. An endpoint that has more than 1.25 times the mean in
//     flight, and more than 10, passes keys on to the next. Without the key: Random.
//   - Original: the address that the client dialled, if it is an endpoint; else Least.
//
// # Locality
//
// The endpoints of a service with a preference (trafficDistribution), or with a
// DestinationRule's localityLbSetting, form groups by how well they match the
// waypoint's own place. A group gets all traffic while 5 of 7 of its capacity
// are ready and not ejected; below, the rest spills over to the next group.
// Strict never leaves the first.
//
// # The breaker
//
// On by default. At most half of the ready endpoints are ejected at once
// (MaxEjectionPercent), one of two or more always may be, the last never is,
// whatever the percentage. Below MinHealthPercent of usable ones, or with none,
// ejections are ignored: a bad endpoint is better than no endpoint.
//
// While ejected an endpoint gets nothing until its time is over, then real
// requests one at a time; such a [Choice] is marked Probe, and if it fails the
// caller tries elsewhere if that is safe. A request that says NoProbe is not
// used, unless no other has come for five seconds.
package balance

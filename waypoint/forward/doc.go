// Package forward makes the waypoint's connections to backends: by HBONE with
// the backend's identity pinned, or plainly to those that do not speak it; and
// keeps those of HTTP between requests.
//
// It owns tunnels, idle connections and their end when a workload changes or
// our certificate is renewed. It refuses to choose a backend, to try again
// another one, and to fall back from HBONE to plaintext. waypoint/exchange and
// waypoint/terminate call it.
package forward

// Package exchange is one request and its answer at a waypoint: who asks, what
// policies say, which rule takes it, what filters make of it, which backend
// answers, and how often it is tried.
//
// It owns the order of these steps (policy comes before routing), what the
// waypoint answers itself, and the record of each request. Each request sees one
// Table from its beginning to its end. It refuses to decide what waypoint/match,
// internal/policy and waypoint/balance decide, and to make connections, which
// waypoint/forward does. The speech with clients is Engine's, which is net/http
// behind a narrow interface. waypoint/terminate hands connections to it.
package exchange

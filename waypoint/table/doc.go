// Package table is the configuration as one waypoint knows it: the view of
// workloads and services that every proxy has, and the routes, policies,
// traffic settings and authentications of what this waypoint serves.
//
// A Table is immutable and swapped whole by one atomic pointer: a request loads
// it once and so sees exactly one configuration, and nothing drains when it
// changes. A Store has one writer, the xDS client. What it cannot understand it
// rejects by name: it keeps the route or setting that it knew, and closes what
// an unreadable policy was to guard. It refuses to decide: waypoint/match and
// internal/policy do. Read by all of waypoint.
//
// Cost: one changed route copies the maps of names, and compiles the routes of
// the services that it is attached to; those of other services are shared.
package table

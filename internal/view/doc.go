// Package view is the mesh as a proxy knows it: workloads, services and
// policies with the indexes that a connection asks for.
//
// A View is immutable and swapped whole by one atomic pointer: a connection
// loads it once, decides from it, and never locks. A Store has one writer, the
// xDS client, and applies each response as one batch; what it cannot
// understand it rejects by name, keeping what it knew of an address, and
// closing what a policy guards. It refuses to decide: ztunnel/route and
// waypoint/match do, with the lookups made here. Read by ztunnel and waypoint.
//
// Cost: indexes are tables of 256 parts that are copied when touched, so one
// changed workload among n copies about n/256 entries of a few tables and
// nothing else; a batch copies each part at most once, so the first response
// is linear. A service's list of endpoints is copied once per batch.
package view

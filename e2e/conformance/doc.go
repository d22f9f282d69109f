// Package conformance is the official conformance suite of the Gateway API, as
// a test program of ours: `make conformance` compiles it and runs it on a
// cluster with the mesh (package e2e/trial of the main module). It owns only
// what the suite leaves to an implementation: when the waypoint comes, and
// which of its tests run. It refuses to change a test or a manifest of the
// suite. Cases of our own in the suite's style stand beside it, and never in
// its report.
package conformance

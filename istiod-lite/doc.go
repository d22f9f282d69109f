// Package istiodlite is the control plane: it reads Kubernetes objects, tells
// every node proxy what it needs and signs the certificates of workloads.
//
// It owns the wiring of its stages (objects in, translate, snapshot, push
// out), the gRPC, readiness, debug and metrics servers, and the order of start
// and stop. It refuses rules of its own: those are in translate, snapshot and
// ca. Called by cmd/istiod, and by tests that run a whole mesh in one process.
package istiodlite

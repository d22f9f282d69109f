// Package waypoint is the root of the optional per-namespace proxy that routes,
// protects and observes at L7: it terminates the tunnels of ztunnels, and
// reaches backends by tunnels of its own.
//
// It is wiring: Run starts the stages and ends them in order. The stages are
// the packages below it. It refuses L4 capture, which is ztunnel's, and
// Kubernetes objects, which are istiod-lite's: everything comes by xDS.
// waypoint/cmd/waypoint calls it.
package waypoint

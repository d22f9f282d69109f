// Package provision says which objects make up the waypoints that users asked
// for: from a Gateway of class istio-waypoint a ServiceAccount, a Deployment
// and a Service, and what the mesh itself brings, such as the class.
//
// It owns what a waypoint's pods look like and may do, and how users change
// that (infrastructure, overlays). It refuses to write: istiod-lite/kube applies
// what a Plan wants and takes away what it does not want any more. It is pure.
// Called by istiod-lite's root whenever a Gateway changed.
package provision

// Package mesh is the vocabulary of the mesh: workloads, services and L4
// policies as plain values, the same on both sides of xDS.
//
// It owns shapes, keys and their text forms. It refuses behaviour: decisions
// are in internal/policy and ztunnel/route, wire forms in internal/wire,
// Kubernetes objects in istiod-lite/translate. Values reached through a
// pointer from shared state are immutable once published.
package mesh

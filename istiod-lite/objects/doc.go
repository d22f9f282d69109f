// Package objects is what the control plane has seen of the user's world: the
// Kubernetes and Istio objects that the rules read, in plain typed maps.
//
// It owns the Set, the names of its parts, its YAML form and the mesh-wide
// settings. It refuses to know where objects come from: istiod-lite/kube fills
// a Set from informers, a directory of YAML or a test fills it by Parse. Read
// by istiod-lite/translate. Objects in a Set are never modified in place.
package objects

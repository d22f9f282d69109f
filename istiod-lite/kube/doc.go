// Package kube is the control plane's only door to the API server: it watches
// what the rules read, and writes what they want told.
//
// It owns informers (Watcher, into a feed.Queue), token reviews (Tokens), the
// Secret of the signing key (Keys), the root certificate in every namespace
// (Roots), conditions of objects (Conditions), what waypoints are made of
// (Provisioner, Parameters), and the lease that lets one replica write (Lead).
// It refuses to interpret objects: that is istiod-lite/translate's. Every custom resource definition may be absent and
// come later. Wired by the root package of istiod-lite.
package kube

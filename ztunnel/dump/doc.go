// Package dump is the JSON form of what a ztunnel knows: the answer to
// /config_dump as istioctl and ambit read it (dataplane spec 7.7), and the
// local file from which a ztunnel without control plane takes the same things.
//
// It owns names and shapes, and refuses everything that changes or decides.
// ztunnel's root calls it.
package dump

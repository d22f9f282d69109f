// Package admin owns the HTTP servers beside a proxy: administration on
// loopback, metrics and readiness on the pod's address (dataplane spec 2.9,
// 7.1, 7.6).
//
// It refuses to know what is dumped or who is ready: the component's root
// gives functions and tasks. Administration is for whoever may enter the
// pod, and so is bound to loopback by its callers.
package admin

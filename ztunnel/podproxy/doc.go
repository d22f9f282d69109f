// Package podproxy is the proxy of one pod: its listeners inside the pod's
// network namespace, what serves them, and their common end.
//
// It owns the composition of ztunnel/inbound, ztunnel/outbound, ztunnel/datagrams,
// ztunnel/dns, the tunnel's servers and the pod's own pool, and closing all of it; it
// refuses to decide when a pod is served, which is ztunnel/inpod's. ztunnel's root
// calls Start.
package podproxy

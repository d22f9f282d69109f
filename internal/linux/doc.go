// Package linux owns what Go's net package cannot say about Linux sockets:
// sockets made inside another network namespace, transparent listeners and
// spoofed sources, the original destination of a redirected connection or
// datagram, answers from the address of somebody else, packet marks, and sysctls
// of a namespace.
//
// It refuses policy: who enters which namespace, and which marks mean what, is
// decided by its callers, ztunnel/inpod and the cni room. Everything here
// needs CAP_SYS_ADMIN and CAP_NET_ADMIN unless it says otherwise.
package linux

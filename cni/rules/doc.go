// Package rules owns what the mesh puts into a pod's network namespace: the
// nftables table istio-ambient, a second one that lets nothing pass in clear
// while the first is damaged, the policy route that brings replies to
// spoofed sources back to ztunnel, and the settings that ztunnel's listeners
// want. Table describes it purely; Apply, Check, Drain and Remove bring it
// about and compare it with the kernel, which is the truth.
//
// TCP is captured, and only by its first packet: a connection that is older than
// the rules goes on untouched. Of a pod that asks for it, other datagrams than
// DNS queries are captured too, each for itself: those that leave are sent to lo
// by their mark, and what arrives there or from the network is given to ztunnel's
// sockets (TPROXY), which see where it was going. Nothing of that hangs on
// connection tracking, which forgets a silent conversation.
//
// Draining removes the redirects but keeps connection tracking and the marks, so
// that captured connections live until they end (Captured counts them). Both were
// tried, see dataplane spec 3.8.
//
// It refuses to decide which pods: cni/members calls it.
package rules

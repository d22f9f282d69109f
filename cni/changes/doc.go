// Package changes tells when rules, routes or addresses change in network
// namespaces, by whosever hand: the kernel's own notifications of nftables and
// of routing, of many namespaces in one goroutine.
//
// It owns two sockets a namespace and the pace at which it tells. It refuses to
// know what has changed and whether that is well: whoever is told compares
// (cni/members, its only user). Notifications can be lost, so whoever relies on
// them compares now and then without being told.
package changes

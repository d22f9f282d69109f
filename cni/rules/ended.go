package rules

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// ForgetEnded makes the kernel forget where connections led that were reset. It
// remembers them for ten seconds, and leads a new one of the same ports to where
// the old one went, whatever the rules say by then.
func ForgetEnded(ns *linux.NetNS) error { return forget(ns, reset{}) }

// tcpClose is the state of a connection that was reset (enum tcp_conntrack).
const tcpClose = 8

// reset matches connections that were.
type reset struct{}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (reset) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP)
	return ok && f.Forward.Protocol == unix.IPPROTO_TCP && tcp.State == tcpClose
}

// forget deletes what connection tracking knows and a filter matches. To ask for
// it takes the kernel some 10 ms for each family, however little there is: it goes
// through the table of the whole node.
func forget(ns *linux.NetNS, filter netlink.CustomConntrackFilter) error {
	return ns.Do(func() error {
		if tracksNothing() {
			return nil
		}
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("connecting to conntrack: %w", err)
		}
		defer h.Close()
		var errs []error
		for _, family := range families() {
			_, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(family), filter)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// tracksNothing reports whether connection tracking knows of nothing in the
// network namespace of the calling thread, as in that of a pod before it starts.
func tracksNothing() bool {
	count, err := linux.ReadSysctl("net.netfilter.nf_conntrack_count")
	return err == nil && count == "0"
}

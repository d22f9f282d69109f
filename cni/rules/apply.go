package rules

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/ambit-mesh/ambit/cni/nft"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// Apply gives the namespace exactly the rules of s. The way back for replies
// is laid before anything is captured.
func Apply(ns *linux.NetNS, s Spec) error {
	if err := applyRoutes(ns, s); err != nil {
		return err
	}
	if err := nft.Apply(ns, s.Table(), s.Guard()); err != nil || s.datagrams() {
		return err
	}
	return removeMarks(ns, datagrams)
}

// Check says in words how the namespace differs from s; nothing if it does not.
func Check(ns *linux.NetNS, s Spec) ([]string, error) {
	drift, err := nft.Check(ns, s.Table())
	if err != nil {
		return nil, err
	}
	guard, err := nft.Check(ns, s.Guard())
	if err != nil {
		return nil, err
	}
	routes, err := checkRoutes(ns, s)
	if err != nil {
		return nil, err
	}
	return slices.Concat(drift, guard, routes), nil
}

// Present reports whether the namespace has a table of ours, whatever is in it.
func Present(ns *linux.NetNS) (bool, error) {
	table, err := nft.Exists(ns, TableName)
	if table || err != nil {
		return table, err
	}
	return nft.Exists(ns, GuardName)
}

// Remove leaves nothing of ours in the namespace. Connections that are still
// captured break: call it when Captured says none.
func Remove(ns *linux.NetNS) error {
	return errors.Join(nft.Remove(ns, GuardName), nft.Remove(ns, TableName), removeRoutes(ns))
}

// Tune lets a newer ztunnel take over an older one's queued connections when
// the older closes its listeners (dataplane spec 3.9). The setting exists from
// kernel 5.14; without it only connections in that instant are lost, so an
// error is worth a log line and no more.
func Tune(ns *linux.NetNS) error {
	const setting = "net.ipv4.tcp_migrate_req"
	return ns.Do(func() error {
		err := linux.WriteSysctl(setting, "1")
		if err == nil {
			return nil
		}
		// A container's /proc/sys is read-only; the node's own is not, and
		// shows the network namespace of whoever reads it.
		if other := os.WriteFile("/proc/1/root/proc/sys/net/ipv4/tcp_migrate_req", []byte("1"), 0); other != nil {
			return fmt.Errorf("%w; by way of the node: %w", err, other)
		}
		return nil
	})
}

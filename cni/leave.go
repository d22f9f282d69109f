package cni

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/ambit-mesh/ambit/cni/podns"
	"github.com/ambit-mesh/ambit/cni/rules"
)

// errLeft ends the parts of an uninstall: there is nothing left to do.
var errLeft = errors.New("every pod is released")

// untilLeft waits until the agent holds no pod any more.
func (n *node) untilLeft(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !n.agent.Left() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return errLeft
}

// forget removes what ztunnel keeps for its next start, beside its socket.
func (n *node) forget() error {
	return os.RemoveAll(filepath.Join(filepath.Dir(n.cfg.ZtunnelSocket), "kept"))
}

// sweep removes rules from namespaces that belong to no pod that is known, as
// of pods that ended but whose sandbox is still there.
func (n *node) sweep() error {
	all, err := podns.All(n.cfg.Proc)
	if err != nil {
		return err
	}
	var errs []error
	for _, ns := range all {
		present, err := rules.Present(ns)
		if err == nil && present {
			err = rules.Remove(ns)
		}
		errs = append(errs, err, ns.Close())
	}
	return errors.Join(errs...)
}

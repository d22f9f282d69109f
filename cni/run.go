package cni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/ambit-mesh/ambit/cni/agent"
	"github.com/ambit-mesh/ambit/cni/chain"
	"github.com/ambit-mesh/ambit/cni/handoff"
	"github.com/ambit-mesh/ambit/cni/members"
	"github.com/ambit-mesh/ambit/cni/plugin"
	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// Run is the node agent. It ends with ctx and leaves pods captured and the
// plugin in place: until an agent runs again, new pods wait.
//
// The order matters. The plugin's socket comes first, so that pods that start
// are at worst told to wait; then what runs already is taken over; then
// ztunnels may connect, for they stop what they are not told of; the plugin
// is installed last, when it can be answered.
func Run(ctx context.Context, cfg Config) error {
	n, err := newNode(cfg.withDefaults(), false)
	if err != nil {
		return err
	}
	defer n.close()
	return n.run(ctx, n.installer.Run)
}

// Uninstall takes the mesh off the node and returns when nothing of it is left:
// no plugin, no rule in a pod or on the node, no annotation. No agent may be
// running. ztunnel should be, so that captured connections can end.
func Uninstall(ctx context.Context, cfg Config) error {
	n, err := newNode(cfg.withDefaults(), true)
	if err != nil {
		return err
	}
	defer n.close()
	// First the plugin, so that pods start whatever comes.
	if err := n.installer.Uninstall(); err != nil {
		return err
	}
	if err := n.run(ctx, n.untilLeft); !errors.Is(err, errLeft) {
		return fmt.Errorf("releasing the node's pods: %w", errors.Join(err, context.Cause(ctx)))
	}
	return errors.Join(n.keeper.LeaveNode(), n.sweep(), n.forget())
}

// node is everything that runs, made but not started.
type node struct {
	cfg       Config
	log       *slog.Logger
	registry  *prometheus.Registry
	readiness admin.Readiness
	ns        *linux.NetNS
	ztunnels  *handoff.Pods
	keeper    *members.Keeper
	agent     *agent.Agent
	installer *chain.Installer
}

func newNode(cfg Config, leaving bool) (*node, error) {
	ns, err := linux.OpenNetNS(cfg.NodeNetNS)
	if err != nil {
		return nil, fmt.Errorf("opening the node's network namespace: %w", err)
	}
	n := &node{
		cfg: cfg, log: cfg.Log.With("component", "cni"), ns: ns,
		registry: prometheus.NewRegistry(), ztunnels: handoff.New(cfg.Log),
	}
	counts := agent.NewCounts(n.registry)
	n.keeper, err = members.New(members.Config{
		Ztunnels: n.ztunnels, Node: ns, KubeletUID: cfg.KubeletUID, Grace: cfg.Grace,
		Mended: func(m members.Mending) { n.agent.Mended(m) }, Log: cfg.Log,
	})
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	n.agent, err = agent.New(agent.Config{
		Kube: cfg.Kube, Node: cfg.NodeName, Exclude: cfg.Exclude, NoDNS: cfg.NoDNS, Proc: cfg.Proc, LookEvery: cfg.LookEvery,
		ControlPlane: cfg.ControlPlane, ControlPlanePort: cfg.ControlPlanePort,
		Leaving: leaving, LeaveLimit: cfg.LeaveLimit,
		Keeper: n.keeper, Ztunnels: n.ztunnels, Counts: counts, Log: cfg.Log,
	})
	if err != nil {
		n.keeper.Close()
		return nil, errors.Join(err, ns.Close())
	}
	n.installer = chain.New(chain.Config{
		Source: cfg.PluginSource, BinDir: cfg.BinDir, ConfDir: cfg.ConfDir, Installed: counts.Installed, Log: cfg.Log,
		Entry: chain.Entry{Type: plugin.Type, AgentSocket: cfg.pluginSocket(), ExcludeNamespaces: cfg.Exclude},
	})
	n.registry.MustRegister(n.gauges()...)
	return n, nil
}

// close comes after everything has stopped.
func (n *node) close() {
	n.keeper.Close()
	n.ztunnels.Close()
	n.ns.Close()
}

// run runs everything, with last as the last part to begin, until ctx ends or a
// part fails, and returns when all have stopped.
func (n *node) run(ctx context.Context, last func(context.Context) error) error {
	parts, ctx := errgroup.WithContext(ctx)
	taken, begun := n.readiness.Task("pods that run already"), make(chan struct{})
	servers, err := n.listen(ctx)
	if err != nil {
		return err
	}
	for _, serve := range servers {
		parts.Go(func() error { return serve(ctx) })
	}
	parts.Go(func() error {
		return n.agent.Run(ctx, func() {
			taken.Set(true)
			close(begun)
		})
	})
	after := func(f func(context.Context) error) {
		parts.Go(func() error {
			select {
			case <-begun:
				return f(ctx)
			case <-ctx.Done():
				return nil
			}
		})
	}
	after(n.serveZtunnels)
	after(last)
	return parts.Wait()
}

func (n *node) serveZtunnels(ctx context.Context) error {
	l, err := zds.Listen(n.cfg.ZtunnelSocket)
	if err != nil {
		return err
	}
	return n.ztunnels.Serve(ctx, l)
}

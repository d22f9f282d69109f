package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"

	"github.com/ambit-mesh/ambit/cni/members"
	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/health"
)

// maxConns bounds the connections of each socket: more than a node starts pods
// at once. Further ones wait; whoever hangs is cut within seconds.
const maxConns = 256

// listen opens every socket of the agent's but ztunnel's, so that what cannot
// be had is known at once.
func (n *node) listen(ctx context.Context) ([]func(context.Context) error, error) {
	var opened []net.Listener
	serve := func(network, address string, h http.Handler) (func(context.Context) error, error) {
		l, err := (&net.ListenConfig{}).Listen(ctx, network, address)
		if err != nil {
			for _, o := range opened {
				o.Close()
			}
			return nil, fmt.Errorf("listening on %s: %w", address, err)
		}
		opened = append(opened, l)
		l = netutil.LimitListener(l, maxConns)
		return func(ctx context.Context) error { return admin.Serve(ctx, h, n.log, l) }, nil
	}
	socket := n.cfg.pluginSocket()
	if err := os.MkdirAll(n.cfg.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("making the run directory: %w", err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing an old socket: %w", err)
	}
	plugin, err := serve("unix", socket, n.agent.Handler())
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("restricting the plugin's socket: %w", err), opened[0].Close())
	}
	health, err := serve("tcp", n.cfg.HealthAddr, n.health())
	if err != nil {
		return nil, err
	}
	metrics, err := serve("tcp", n.cfg.MetricsAddr, admin.MetricsHandler(n.registry, n.log))
	if err != nil {
		return nil, err
	}
	return []func(context.Context) error{plugin, health, metrics}, nil
}

// health says that the process lives, and whether it is ready: what ran is
// taken over and the plugin is in place. A ztunnel that is absent makes pods
// wait but not the agent unready: they depend on each other the other way.
func (n *node) health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET "+health.Path, admin.Local(admin.Page(n.told)))
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		pending := n.readiness.Pending()
		if !n.installer.Ready() {
			pending = append(pending, "plugin in place")
		}
		if len(pending) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, "not ready, pending: %q\n", pending)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return mux
}

func (n *node) gauges() []prometheus.Collector {
	gauge := func(name, help string, labels prometheus.Labels, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f)
	}
	all := []prometheus.Collector{
		gauge("ztunnel_connected", "ztunnels that have been told of all pods.", nil, func() float64 { return float64(n.ztunnels.Connected()) }),
		gauge("istio_cni_install_ready", "Whether the CNI plugin is in place.", nil, func() float64 {
			if n.installer.Ready() {
				return 1
			}
			return 0
		}),
	}
	for _, p := range []members.Phase{members.Waiting, members.Captured, members.Leaving, members.Draining} {
		all = append(all, gauge("ambit_cni_pods", "Pods of the mesh on this node, by phase.",
			prometheus.Labels{"phase": p.String()}, func() float64 { return float64(n.keeper.Count(p)) }))
	}
	return all
}

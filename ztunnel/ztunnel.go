// Package ztunnel is the root of the node proxy: it carries the connections of
// the pods of one node, encrypted between nodes, and enforces L4 policy.
//
// It is wiring: Run starts the stages and ends them in order. The stages are
// the packages below it; decisions are in ztunnel/route, state in internal/view.
// It refuses Kubernetes: everything comes by xDS, by the CNI agent's socket, or
// from a local file. ztunnel/cmd/ztunnel calls it.
package ztunnel

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/drain"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/dns"
	"github.com/ambit-mesh/ambit/ztunnel/journal"
	"github.com/ambit-mesh/ambit/ztunnel/kept"
	"github.com/ambit-mesh/ambit/ztunnel/podproxy"
)

// proxy is one running ztunnel.
type proxy struct {
	config     Config
	log        *slog.Logger
	store      *view.Store
	kept       *kept.Keeper
	journal    *journal.Journal // nil: none
	source     source
	certs      certificates
	names      podproxy.Names
	pods       pods
	readiness  admin.Readiness
	registry   *prometheus.Registry
	recorder   *telemetry.Recorder
	dryRuns    *telemetry.DryRuns
	transports *telemetry.Transports
	drops      *telemetry.DatagramDrops
	decisions  *decision.Ring
	tracer     *tracing.Tracer    // nil: no spans
	known      atomic.Bool        // the agent's pods are known
	quit       context.CancelFunc // begins the end
}

// Run serves until ctx is done, then drains within Config.DrainDeadline, and
// returns when everything it started has ended. An error is why it could not
// serve.
func Run(ctx context.Context, c Config) error {
	c.fill()
	p := &proxy{config: c, log: c.Logger.With("component", "ztunnel"), store: view.NewStore()}
	if n, err := linux.RaiseOpenFiles(); err != nil {
		p.log.Warn("open files", "error", err)
	} else {
		p.log.Debug("open files", "limit", n)
	}
	if err := p.build(); err != nil {
		return err
	}
	p.remember()
	ctx, p.quit = context.WithCancel(ctx)
	defer p.quit()
	err := drain.Life{
		Begin:  p.beside().Start,
		Beside: []func(context.Context) error{p.source.run, p.certs.Run, p.follow, p.keep, p.trace},
		Serve:  p.serve, Quit: p.quit,
	}.Run(ctx)
	return errors.Join(err, p.journal.Close())
}

// build makes everything that runs later.
func (p *proxy) build() error {
	c := &p.config
	p.registry = telemetry.NewRegistry("ztunnel", c.Version)
	traffic := telemetry.NewTraffic(telemetry.TrafficConfig{})
	p.dryRuns = telemetry.NewDryRuns(c.Logger)
	p.registry.MustRegister(traffic, p.dryRuns)
	p.recorder, p.decisions = telemetry.NewRecorder(traffic, c.Logger), decision.NewRing(decision.Config{})
	var err error
	if p.tracer, err = tracing.New(context.Background(), p.tracing()); err != nil {
		return err
	}
	if err = p.openKept(); err != nil {
		return err
	}
	if p.source, err = newSource(c, p.store, p.kept, p.registry); err != nil {
		return err
	}
	if p.certs, err = newCertificates(c, p.kept); err != nil {
		return err
	}
	p.registry.MustRegister(p.certs)
	p.bound()
	p.buildNames()
	p.transports, p.drops = telemetry.NewTransports(p.registry), telemetry.NewDatagramDrops()
	p.registry.MustRegister(p.drops)
	if p.pods, err = p.newPods(); err != nil {
		return err
	}
	telemetry.RegisterTunnels(p.registry, p.tunnels)
	return nil
}

// buildNames makes what the pods' DNS proxies share.
func (p *proxy) buildNames() {
	p.names = podproxy.Names{
		Servers: dns.NewResolvers(p.config.ResolvConf).Servers, NoProxy: p.config.NoDNS, Domain: p.config.Domain, Metrics: dns.NewMetrics(),
	}
	p.registry.MustRegister(p.names.Metrics)
}

// serve brings the data plane up, keeps it until ctx is done, and drains it.
func (p *proxy) serve(ctx context.Context) error {
	err := p.carry(ctx)
	return errors.Join(err, p.drain(ctx))
}

// carry brings the data plane up once the state is known, and keeps it until
// ctx is done.
func (p *proxy) carry(ctx context.Context) error {
	task := p.readiness.Task("state manager")
	serving := p.readiness.Task(p.pods.task())
	if !p.awaitState(ctx) {
		return nil
	}
	task.Set(true)
	return p.pods.run(ctx, func(ok bool) { serving.Set(ok); p.known.Store(ok) })
}

// drain ends the data plane.
func (p *proxy) drain(ctx context.Context) error {
	p.readiness.Task("shutting down")
	p.kept.Leave(p.keepable()) // a successor may know more from now on
	p.log.Info("draining", "deadline", p.config.DrainDeadline)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.config.DrainDeadline)
	defer cancel()
	err := p.pods.drain(ctx)
	p.log.Info("drained", "complete", ctx.Err() == nil, "cut", p.recorder.Cuts(telemetry.CutDrain))
	return err
}

// pages tell of decisions, those made and those that would be, and how it is.
func (p *proxy) pages() map[string]http.Handler {
	name := "ztunnel " + cmp.Or(p.config.Self.Node, p.config.Self.Name, "local")
	pages := decision.Pages(p.decisions, name)
	pages["GET /state"] = admin.JSON(func() any { return p.keptStatus() })
	pages["POST /can"] = decision.CanPage(p.can, name)
	p.facts(pages)
	return pages
}

// beside are the servers beside the data plane.
func (p *proxy) beside() admin.Servers {
	c := &p.config
	return admin.Servers{
		Admin:   admin.Config{Name: "ztunnel", Dump: p.dump, Levels: c.Levels, Quit: p.quit, More: p.pages()},
		Metrics: p.registry, Readiness: &p.readiness, Logger: p.log,
		AdminPort: c.AdminPort, MetricsPort: c.MetricsPort, ReadyPort: c.ReadyPort,
	}
}

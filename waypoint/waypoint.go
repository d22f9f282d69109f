package waypoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/drain"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/waypoint/balance"
	"github.com/ambit-mesh/ambit/waypoint/exchange"
	"github.com/ambit-mesh/ambit/waypoint/forward"
	"github.com/ambit-mesh/ambit/waypoint/table"
	"github.com/ambit-mesh/ambit/waypoint/terminate"
)

// proxy is one running waypoint.
type proxy struct {
	config    Config
	log       *slog.Logger
	store     *table.Store
	source    source
	certs     *certs.Manager
	renewed   *certs.Renewals
	readiness admin.Readiness
	registry  *prometheus.Registry
	decisions *decision.Ring
	tracer    *tracing.Tracer

	balancer *balance.Balancer
	forward  *forward.Forwarder
	exchange *exchange.Exchanger
	engine   *exchange.Engine
	door     *terminate.Terminator
	quit     context.CancelFunc // begins the end
}

// Run serves until ctx is done, then drains within Config.DrainDeadline, and
// returns when everything it started has ended. An error is why it could not
// serve.
func Run(ctx context.Context, c Config) error {
	c.fill()
	p := &proxy{config: c, log: c.Logger.With("component", "waypoint"), renewed: certs.NewRenewals()}
	if n, err := linux.RaiseOpenFiles(); err != nil {
		p.log.Warn("open files", "error", err)
	} else {
		p.log.Debug("open files", "limit", n)
	}
	if err := p.build(); err != nil {
		return err
	}
	p.buildStages()
	defer p.closeStages()
	ctx, p.quit = context.WithCancel(ctx)
	defer p.quit()
	return drain.Life{
		Begin:  p.beside().Start,
		Beside: []func(context.Context) error{p.source.Run, p.certs.Run, p.follow},
		Serve:  p.serve, Quit: p.quit,
	}.Run(ctx)
}

// build makes what may fail.
func (p *proxy) build() error {
	c := &p.config
	if c.Self.Gateway == "" || c.Self.Name == "" || c.Self.Namespace == "" {
		return errors.New("the waypoint's own name, namespace and Gateway are not configured")
	}
	p.registry = telemetry.NewRegistry("waypoint", c.Version)
	if p.store = c.Store; p.store == nil {
		p.store = table.NewStore(c.Self.Service())
	}
	var err error
	if p.source, err = newSource(c, p.store, p.registry); err != nil {
		return err
	}
	if p.tracer, err = tracing.New(context.Background(), p.tracing()); err != nil {
		return err
	}
	if p.certs, err = newCertificates(c, p.renewed); err != nil {
		return err
	}
	p.registry.MustRegister(p.certs)
	return nil
}

// buildStages makes the stages of the data plane.
func (p *proxy) buildStages() {
	c := &p.config
	requests := telemetry.NewExchanges(telemetry.ExchangesConfig{}, c.Logger)
	connections := telemetry.NewTraffic(telemetry.TrafficConfig{Reporters: []telemetry.Direction{telemetry.Waypoint}})
	dryRuns := telemetry.NewDryRuns(c.Logger)
	p.registry.MustRegister(requests, connections, dryRuns)
	p.decisions = decision.NewRing(decision.Config{})
	p.balancer = balance.NewBalancer()
	p.registry.MustRegister(p.balancer)
	abuses := telemetry.NewAbuses(p.registry)
	c.Tuning.Unread = h2.NewUnread(0)
	c.Tuning.Abused = func(a h2.Abuse) { abuses.Add(string(a)) }
	p.forward = forward.New(forward.Config{Credentials: p.certs, Self: p.self, Tuning: c.Tuning, Logger: c.Logger})
	telemetry.RegisterTunnels(p.registry, p.forward.Held)
	p.exchange = exchange.New(exchange.Config{
		Table: func() exchange.Table { return p.store.Table() }, Self: p.self, Balancer: p.balancer, Forward: p.forward,
		Serving: p.serving,
		Record:  requests.Record, DryRuns: dryRuns, Decisions: p.decisions, Tracer: p.tracer, Logger: c.Logger,
	})
	engine := c.Engine
	engine.Handler, engine.Logger = p.exchange, c.Logger
	p.engine = exchange.NewEngine(engine)
	p.door = terminate.New(terminate.Config{
		Table: func() terminate.Table { return p.store.Table() }, Gateway: c.Self.Service(), Self: p.self, HTTP: p.engine,
		Balancer: p.balancer, Forward: p.forward, Recorder: telemetry.NewRecorder(connections, c.Logger), DryRuns: dryRuns, Decisions: p.decisions, Logger: c.Logger,
	})
}

// tracing describes this proxy to the collector.
func (p *proxy) tracing() tracing.Config {
	c := p.config.Tracing
	self := &p.config.Self
	c.Service, c.Namespace, c.Pod, c.Version, c.Logger = self.Gateway+"."+self.Namespace, self.Namespace, self.Name, p.config.Version, p.config.Logger
	return c
}

// closeStages ends them from the client's side on, and then sends the spans
// that are left.
func (p *proxy) closeStages() {
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.tracer.Close(ctx); err != nil {
			p.log.Warn("spans left", "error", err)
		}
	}()
	p.engine.Close()
	p.exchange.Close()
	p.forward.Close()
}

// serving is who serves a service's requests; the door knows what has left.
func (p *proxy) serving(k mesh.ServiceKey) (exchange.Table, bool) {
	t, leaving := p.door.Serving(k)
	if t == nil {
		return nil, false
	}
	return t.(exchange.Table), leaving
}

// self is the waypoint's own record, nil while it has not come.
func (p *proxy) self() *mesh.Workload {
	s := &p.config.Self
	return p.store.Table().View().WorkloadByAccount(s.Namespace, s.Name, s.ServiceAccount)
}

// identity waits for the record, which tells the trust domain.
func (p *proxy) identity(ctx context.Context) (spiffe.ID, error) {
	if _, err := p.store.Wait(ctx, func(*table.Table) bool { return p.self() != nil }); err != nil {
		return spiffe.ID{}, fmt.Errorf("waiting for the waypoint's own record: %w", err)
	}
	return p.self().Identity(), nil
}

// aliases are further names of the waypoint's trust domain.
func (p *proxy) aliases(context.Context) []string {
	if self := p.self(); self != nil {
		return self.Settings.TrustDomainAliases
	}
	return nil
}

// follow brings the stages up to date with each new table and certificate,
// until ctx is done. Tables that come while it works are skipped but for the
// last.
func (p *proxy) follow(ctx context.Context) error {
	for {
		t := p.store.Table()
		p.forward.Follow(t.View(), p.renewed.Take())
		if cut := p.door.Follow(t); cut > 0 {
			p.log.Info("connections cut by policy", "count", cut)
		}
		select {
		case <-t.Superseded():
		case <-p.renewed.Wake():
		case <-ctx.Done():
			return nil
		}
	}
}

// beside are the servers beside the data plane.
func (p *proxy) beside() admin.Servers {
	c := &p.config
	return admin.Servers{
		Admin:   admin.Config{Name: "waypoint", Dump: p.dump, Levels: c.Levels, Quit: func() { p.quit() }, More: p.pages()},
		Metrics: p.registry, Readiness: &p.readiness, Logger: p.log,
		AdminPort: c.AdminPort, MetricsPort: c.MetricsPort, ReadyPort: c.ReadyPort,
	}
}

// patience bounds what should be known already.
const patience = 5 * time.Second

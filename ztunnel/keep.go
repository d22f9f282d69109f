package ztunnel

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/ztunnel/journal"
	"github.com/ambit-mesh/ambit/ztunnel/kept"
)

// openKept opens what was kept and will be. A state that comes from a file, and
// a proxy of one pod, keep nothing.
func (p *proxy) openKept() error {
	c := &p.config
	dir := c.KeptDir
	if c.LocalFile != "" || c.Only != nil {
		dir = ""
	}
	p.kept = kept.Open(kept.Config{
		Dir: dir, Cluster: c.Self.ClusterID, TrustDomain: c.Self.TrustDomain, Node: c.Self.Node,
		MaxAge: c.CertificateTTL, Logger: c.Logger,
	})
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_state_age_seconds", Help: "How long ago the control plane last confirmed the state that is served",
	}, func() float64 { return p.stateAge().Seconds() })
	for _, collector := range []prometheus.Collector{p.kept, age} {
		if err := p.registry.Register(collector); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

// remember begins the journal of open connections, and records those that were
// cut when an earlier process was killed.
func (p *proxy) remember() {
	dir := p.kept.Dir()
	if dir == "" {
		return
	}
	j, lost, err := journal.Open(dir)
	if err != nil {
		p.log.Warn("open connections are not remembered for the next start", "error", err)
	}
	for _, f := range lost {
		p.recorder.Lost(f)
	}
	if len(lost) > 0 {
		p.log.Warn("an earlier process ended without draining", "cut", len(lost))
	}
	if j != nil {
		p.journal = j
		p.recorder.Remember(j)
	}
}

// keepable is what is kept beside the state.
func (p *proxy) keepable() kept.Source {
	return kept.Source{Connected: func() bool { return p.stateAge() == 0 }, Certificates: p.certs.Keepable, Told: p.certs.Told}
}

func (p *proxy) keep(ctx context.Context) error { return p.kept.Run(ctx, p.keepable()) }

// stateAge is how long ago the control plane last confirmed what is served; 0
// while it is connected, and before anything is known.
func (p *proxy) stateAge() time.Duration {
	at := p.source.confirmed()
	if at.IsZero() {
		return 0
	}
	return max(0, time.Since(at)).Truncate(time.Millisecond)
}

// awaitState waits until there is a state to serve with: the control plane's,
// or, if that does not come for a while, what was kept. It is false when ctx
// ends before.
func (p *proxy) awaitState(ctx context.Context) bool {
	restored := p.kept.Status().Restored
	patience := make(<-chan time.Time)
	if restored != nil {
		patience = time.After(p.config.KeptPatience)
	}
	select {
	case <-p.source.synced():
		p.log.Info("state received", "workloads", len(p.store.View().Workloads()), "generation", p.store.View().Generation())
		return true
	case <-patience:
		p.log.Warn("the control plane is away: serving with the state that was kept", "workloads", len(p.store.View().Workloads()), "confirmed", restored.Confirmed)
		return true
	case <-ctx.Done():
		return false
	}
}

// forgetGone lets go of kept certificates whose pods are no longer here, once
// that is known.
func (p *proxy) forgetGone() {
	p.certs.ForgetKept()
	p.kept.CertificatesChanged()
}

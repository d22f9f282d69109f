package istiodlite

import (
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// newConductor makes who brings the mesh from one authority to another.
func (p *plane) newConductor() *ca.Conductor {
	return ca.NewConductor(ca.ConductorConfig{
		Board: p.platform.board, Authority: p.authority, Guides: p.guides, Replica: p.cfg.Identity, Members: p.pods.Members,
		Changed: func() {
			p.metrics.rootExpiry.Set(float64(p.authority.Expires().Unix()))
			p.platform.changed()
		},
		Progress: p.rotated, Logger: p.cfg.Logger.With("component", "ca"),
	})
}

// rotated keeps the metrics of a rotation.
func (p *plane) rotated(s rotation.State, waiting int) {
	p.metrics.rootPhase.Reset()
	p.metrics.rootPhase.WithLabelValues(string(s.Phase)).Set(1)
	p.metrics.rootWaiting.Set(float64(waiting))
	p.metrics.rootSince.Set(float64(s.Since.Unix()))
}

package istiodlite

import (
	"time"

	"github.com/ambit-mesh/ambit/internal/health"
)

// health is what `ambit check` asks a replica for.
func (p *plane) health() health.ControlPlane {
	h := health.ControlPlane{Now: time.Now(), TrustDomain: p.trustDomain(), Signs: p.authority.Expires()}
	h.Roots, _ = health.RootsOf(p.authority.Roots())
	return h
}

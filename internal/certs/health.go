package certs

import "github.com/ambit-mesh/ambit/internal/health"

// Health is the identities and the roots of their certificates, each root once,
// as parts tell them to `ambit check`.
func (m *Manager) Health() (identities []health.Identity, roots []health.Root) {
	known := map[string]bool{}
	for _, s := range m.List() {
		i := health.Identity{ID: s.ID.String(), TrustDomain: s.ID.TrustDomain, State: string(s.State)}
		if s.Err != nil {
			i.Error = s.Err.Error()
		}
		if s.Certificate != nil {
			i.Until = s.Certificate.Leaf().NotAfter
			for _, c := range s.Certificate.Roots {
				if r := health.RootOf(c); !known[r.Fingerprint] {
					known[r.Fingerprint] = true
					roots = append(roots, r)
				}
			}
		}
		identities = append(identities, i)
	}
	return identities, roots
}

package exchange

import (
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// TestRequestsOfAnotherTrustDomainAreDenied: their tunnel may be older than the
// end of the alias by which it was accepted.
func TestRequestsOfAnotherTrustDomainAreDenied(t *testing.T) {
	for _, tt := range []struct {
		aliases []string
		status  int
	}{{nil, 403}, {[]string{"other.example"}, 200}} {
		r := newRig(t)
		r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.Named("web")))
		self := *r.self
		self.Settings.TrustDomainAliases = tt.aliases
		r.x.config.Self = func() *mesh.Workload { return &self }
		r.mu.Lock()
		r.arrival.Peer.TrustDomain = "other.example"
		r.mu.Unlock()
		if resp, _ := r.do(false, "GET /", ""); resp.StatusCode != tt.status {
			t.Errorf("with the aliases %v answered %d, want %d", tt.aliases, resp.StatusCode, tt.status)
		}
	}
}

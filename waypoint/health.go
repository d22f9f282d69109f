package waypoint

import (
	"net/http"
	"time"

	"github.com/ambit-mesh/ambit/internal/health"
	"github.com/ambit-mesh/ambit/internal/xds"
)

// health is what `ambit check` and `ambit status` ask for.
func (p *proxy) health(*http.Request) any {
	h := health.Proxy{
		Node: p.config.Self.Node, Version: p.config.Version, Now: time.Now(), Configuration: p.store.Table().Generation(),
		ControlPlane: health.Connection{Address: p.config.ControlPlane.Address},
	}
	if c, ok := p.source.(*xds.Client); ok {
		s := c.Status()
		h.ControlPlane.Connected, h.ControlPlane.Since, h.ControlPlane.Error = s.Connected, s.Since, s.LastError
	}
	h.Identities, h.Roots = p.certs.Health()
	return h
}

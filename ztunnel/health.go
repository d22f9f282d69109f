package ztunnel

import (
	"net/http"
	"time"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/health"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/ztunnel/inpod"
	"github.com/ambit-mesh/ambit/ztunnel/podproxy"
)

// facts are the pages that `ambit check` and `ambit status` ask.
func (p *proxy) facts(pages map[string]http.Handler) {
	pages["GET "+health.Path] = admin.Page(func(*http.Request) any { return p.health() })
	pages["POST "+health.ReachPath] = admin.Page(func(r *http.Request) any { return p.reach(r.Context()) })
}

func (p *proxy) health() health.Proxy {
	h := health.Proxy{
		Node: p.config.Self.Node, Version: p.config.Version, Now: time.Now(), Configuration: p.store.View().Configuration(), Age: p.stateAge(),
		ControlPlane: health.Connection{Address: p.config.ControlPlane.Address},
	}
	if s, ok := p.source.status().(xds.ConnStatus); ok {
		h.ControlPlane.Connected, h.ControlPlane.Since, h.ControlPlane.Error = s.Connected, s.Since, s.LastError
	}
	h.Identities, h.Roots = p.certs.Health()
	for _, s := range p.pods.list() {
		if why := unserved(s); why != "" {
			h.Unserved = append(h.Unserved, health.Unserved{Pod: s.Pod.Namespace + "/" + s.Pod.Name, Error: why})
		}
	}
	return h
}

// unserved is why a pod is not served, or not wholly; empty if it is.
func unserved(s inpod.Status) string {
	if s.Err != nil {
		return s.Err.Error()
	}
	return trouble(s)
}

// trouble is why the names of a pod that is served are not answered by the mesh.
func trouble(s inpod.Status) string {
	if proxy, ok := s.Proxy.(*podproxy.Proxy); ok {
		return proxy.Trouble()
	}
	return ""
}

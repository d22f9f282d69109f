package cni

import (
	"net/http"
	"time"

	"github.com/ambit-mesh/ambit/internal/health"
)

// told is what `ambit check` asks the agent for.
func (n *node) told(*http.Request) any {
	h := health.Agent{Node: n.cfg.NodeName, Now: time.Now(), Ztunnels: n.ztunnels.Connected()}
	p := n.installer.Status()
	h.Plugin = health.Plugin{InPlace: n.installer.Ready(), Restored: p.Restored, Last: p.Last}
	if p.Err != nil {
		h.Plugin.Error = p.Err.Error()
	}
	h.Pods, h.Waiting = n.agent.Health()
	return h
}

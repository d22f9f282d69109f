package ztunnel

import (
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// bound gives the tunnels of all pods one bound for what nobody reads, and one
// metric of who was cut off or turned away: the pods share this process's memory.
func (p *proxy) bound() {
	t := &p.config.Tuning
	abuses := telemetry.NewAbuses(p.registry)
	t.Abused = func(a h2.Abuse) { abuses.Add(string(a)) }
	if t.Unread == nil {
		t.Unread = h2.NewUnread(0)
	}
}

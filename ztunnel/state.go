package ztunnel

import (
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/dump"
	"github.com/ambit-mesh/ambit/ztunnel/podproxy"
)

// dump is the answer to /config_dump.
func (p *proxy) dump() any {
	d := &dump.Dump{
		Certificates:  p.certs.dumped(),
		WorkloadState: map[string]dump.State{},
		ControlPlane:  p.source.status(),
		Version:       map[string]string{"version": p.config.Version},
		Config: map[string]any{
			"node": p.config.Self.Node, "network": p.config.Self.Network, "clusterId": p.config.Self.ClusterID,
			"controlPlane": p.config.ControlPlane.Address, "ca": p.config.CA.Address, "localFile": p.config.LocalFile,
			"agentSocket": p.config.AgentSocket, "drainDeadline": p.config.DrainDeadline.String(),
		},
	}
	d.AddView(p.store.View())
	for _, s := range p.pods.list() {
		var live []connections.Info
		if proxy, ok := s.Proxy.(*podproxy.Proxy); ok {
			live = proxy.Connections()
		}
		d.AddPod(s.Pod, string(s.State), s.Err, live)
	}
	return d
}

package ztunnel

import (
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/dump"
	"github.com/ambit-mesh/ambit/ztunnel/podproxy"
)

// keptStatus is what the dump says of the state and its keeping.
func (p *proxy) keptStatus() dump.Kept {
	k := dump.Kept{Confirmed: p.source.confirmed(), Age: p.stateAge().String(), Files: p.kept.Status()}
	k.Kept = k.Files.Restored != nil && !closed(p.source.synced())
	return k
}

// dump is the answer to /config_dump.
func (p *proxy) dump() any {
	d := &dump.Dump{
		Certificates:  p.certs.dumped(),
		WorkloadState: map[string]dump.State{},
		ControlPlane:  p.source.status(),
		Kept:          p.keptStatus(),
		Version:       map[string]string{"version": p.config.Version},
		Config: map[string]any{
			"node": p.config.Self.Node, "network": p.config.Self.Network, "clusterId": p.config.Self.ClusterID,
			"controlPlane": p.config.ControlPlane.Address, "ca": p.config.CA.Address, "localFile": p.config.LocalFile,
			"trustDomain": p.config.Self.TrustDomain, "agentSocket": p.config.AgentSocket, "drainDeadline": p.config.DrainDeadline.String(),
		},
	}
	d.AddView(p.store.View())
	for _, s := range p.pods.list() {
		var live []connections.Info
		if proxy, ok := s.Proxy.(*podproxy.Proxy); ok {
			live = proxy.Connections()
		}
		d.AddPod(s.Pod, string(s.State), s.Err, live)
		d.AddTrouble(s.Pod, trouble(s))
	}
	return d
}

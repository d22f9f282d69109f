package podproxy

import (
	"context"
	"net"
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/ztunnel/dns"
)

// Names is how the pods of a node find names.
type Names struct {
	// Servers are the resolvers that are asked, from inside the pod.
	Servers func() ([]netip.AddrPort, error)
	// NoProxy leaves the pods' DNS queries alone.
	NoProxy bool
	// Domain is the cluster's. Empty is cluster.local.
	Domain string
	// Metrics count. Nil: nobody does.
	Metrics *dns.Metrics
}

// serveNames starts the pod's DNS proxy, if there is to be one. That it cannot
// listen leaves the rest of the pod as it is.
func (p *Proxy) serveNames() *dns.Server {
	n := p.config.Names
	if n.NoProxy {
		return nil
	}
	return dns.Start(dns.Config{
		Store: p.config.Store, Local: p.local, Known: p.known, Domain: n.Domain, Servers: n.Servers, Dial: p.dialResolver,
		NS: p.ns, Mark: p.config.Mark, ReusePort: !p.config.NoReusePort, Metrics: n.Metrics,
		Logger: p.config.Logger.With("component", "dns"),
	})
}

func (p *Proxy) known() *mesh.Workload {
	return p.config.Store.View().WorkloadByAccount(p.pod.Namespace, p.pod.Name, p.pod.ServiceAccount)
}

// dialResolver asks from inside the pod, so that a NetworkPolicy sees the pod.
func (p *Proxy) dialResolver(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	o := linux.DialOptions{Mark: p.config.Mark, KeepAlive: p.config.KeepAlive}
	if network == "udp" {
		return linux.DialUDP(ctx, p.ns, to, o)
	}
	return linux.DialTCP(ctx, p.ns, to, o)
}

// Trouble says what is wrong with the pod's service, though it is served; empty
// if nothing is.
func (p *Proxy) Trouble() string {
	if p.names == nil {
		return ""
	}
	return p.names.Trouble()
}

package translate

import (
	"cmp"
	"fmt"
	"strings"

	api "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// destination is a DestinationRule, converted.
type destination struct {
	key        objects.Key
	created    int64
	generation int64
	// host is the full name it speaks of; a leading "*" stands for anything.
	host     string
	exportTo []string
	// barred says that no waypoint reads it.
	barred   bool
	settings mesh.Settings
	ports    map[uint16]mesh.Settings
	notes    []string
}

// destinationRule converts a DestinationRule. What is not supported is left
// out, and its author told.
func destinationRule(m objects.MeshConfig, dr *networking.DestinationRule) *destination {
	d := &destination{
		key:     objects.Key{Namespace: dr.Namespace, Name: dr.Name},
		created: dr.CreationTimestamp.Unix(), generation: dr.Generation,
		host: fullHost(m, dr.Spec.GetHost(), dr.Namespace), exportTo: dr.Spec.GetExportTo(),
	}
	if dr.Spec.GetWorkloadSelector() != nil {
		d.barred = true
		d.note("workloadSelector speaks to chosen clients, which waypoints are not: the rule has no effect.")
		return d
	}
	if n := len(dr.Spec.GetSubsets()); n > 0 {
		d.note("subsets: no route can name them, so they have no effect. Give each version a Service, and route to those.")
	}
	p := dr.Spec.GetTrafficPolicy()
	d.settings = d.convert(p.GetLoadBalancer(), p.GetConnectionPool(), p.GetOutlierDetection(), p.GetTls(), "trafficPolicy")
	d.settings.RetryBudget = d.retryBudget(p.GetRetryBudget())
	d.portLevel(p)
	if p.GetTunnel() != nil {
		d.note("trafficPolicy.tunnel has no effect: connections are not tunnelled through another proxy.")
	}
	if p.GetProxyProtocol() != nil {
		d.note("trafficPolicy.proxyProtocol has no effect: no PROXY header is sent.")
	}
	return d
}

func (d *destination) note(format string, args ...any) {
	d.notes = append(d.notes, fmt.Sprintf(format, args...))
}

// portLevel converts settings that stand in place of the others, whole.
func (d *destination) portLevel(p *api.TrafficPolicy) {
	for i, s := range p.GetPortLevelSettings() {
		at := fmt.Sprintf("trafficPolicy.portLevelSettings[%d]", i)
		port := s.GetPort().GetNumber()
		if port == 0 || port > 65535 {
			d.note("%s names no port: it has no effect.", at)
			continue
		}
		if d.ports == nil {
			d.ports = map[uint16]mesh.Settings{}
		}
		out := d.convert(s.GetLoadBalancer(), s.GetConnectionPool(), s.GetOutlierDetection(), s.GetTls(), at)
		out.RetryBudget = d.settings.RetryBudget
		d.ports[uint16(port)] = out
	}
}

func (d *destination) convert(lb *api.LoadBalancerSettings, pool *api.ConnectionPoolSettings, outlier *api.OutlierDetection, tls *api.ClientTLSSettings, at string) mesh.Settings {
	s := mesh.Settings{
		Balancer: d.balancer(lb, at+".loadBalancer"), Connections: d.connections(pool, at+".connectionPool"),
		Outlier: d.outlier(outlier, at+".outlierDetection"), TLS: d.originate(tls, at+".tls"),
	}
	// As upstream: whoever asks for sick endpoints to be found prefers near ones.
	if outlier != nil && lb.GetLocalityLbSetting() == nil {
		s.Balancer.PreferLocal = true
	}
	return s
}

// fullHost completes a name without a dot; others are full already.
func fullHost(m objects.MeshConfig, host, namespace string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "*" || strings.Contains(host, ".") {
		return host
	}
	return serviceKey(m, objects.Key{Namespace: namespace, Name: host}).Hostname
}

// speaksOf reports whether the rule is for a host.
func (d *destination) speaksOf(host string) bool {
	if d == nil || d.barred {
		return false
	}
	if suffix, wild := strings.CutPrefix(d.host, "*"); wild {
		return strings.HasSuffix(host, suffix)
	}
	return d.host == host
}

// visible reports whether the rule is exported to a namespace.
func (d *destination) visible(namespace string) bool {
	if len(d.exportTo) == 0 {
		return true
	}
	for _, to := range d.exportTo {
		if to == "*" || to == namespace || to == "." && namespace == d.key.Namespace {
			return true
		}
	}
	return false
}

// compare is the order of rules of one namespace that speak of one host: an
// exact one, then the longer, then the older, then the first by name.
func (d *destination) compare(o *destination) int {
	wild := func(d *destination) int { return strings.Count(d.host[:1], "*") }
	return cmp.Or(
		cmp.Compare(wild(d), wild(o)), cmp.Compare(len(o.host), len(d.host)),
		cmp.Compare(d.created, o.created), cmp.Compare(d.key.Name, o.key.Name),
	)
}

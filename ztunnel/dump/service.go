package dump

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// Service is a mesh.Service in istioctl's words.
type Service struct {
	Name             string              `json:"name"`
	Namespace        string              `json:"namespace"`
	Hostname         string              `json:"hostname"`
	VIPs             []string            `json:"vips"`
	CIDRVIPs         []string            `json:"cidrVips,omitempty"`
	Ports            Ports               `json:"ports"`
	Endpoints        map[string]Endpoint `json:"endpoints,omitempty"`
	Waypoint         *Gateway            `json:"waypoint,omitempty"`
	WeightedWayoints []WeightedWaypoint  `json:"weightedWaypoints,omitempty"`
	SubjectAltNames  []string            `json:"subjectAltNames,omitempty"`
	LoadBalancer     *LoadBalancer       `json:"loadBalancer,omitempty"`
	IPFamilies       string              `json:"ipFamilies,omitempty"`
	Canonical        bool                `json:"canonical,omitempty"`
	Visibility       string              `json:"visibility,omitempty"`
	VisibleIn        []string            `json:"visibleIn,omitempty"`
}

// Endpoint is one workload of a service.
type Endpoint struct {
	WorkloadUID string `json:"workloadUid"`
	Port        Ports  `json:"port"`
	Status      string `json:"status"`
}

// WeightedWaypoint is one of several waypoints.
type WeightedWaypoint struct {
	Gateway
	Weight uint32 `json:"weight"`
}

// LoadBalancer is a service's choice of endpoints.
type LoadBalancer struct {
	Mode               string   `json:"mode"`
	RoutingPreferences []string `json:"routingPreferences,omitempty"`
	HealthPolicy       string   `json:"healthPolicy"`
}

var (
	modes    = []string{"Standard", "Strict", "Failover", "Passthrough"}
	scopes   = []string{"Unspecified", "Region", "Zone", "Subzone", "Node", "Cluster", "Network"}
	families = []string{"", "IPv4", "IPv6", "Dual"}
	healths  = map[bool]string{false: "OnlyHealthy", true: "AllowAll"}
)

func serviceOf(v *view.View, s *mesh.Service) Service {
	out := Service{
		Name: s.Name, Namespace: s.Namespace, Hostname: s.Hostname, VIPs: []string{}, Ports: portsOf(s.Ports),
		Endpoints: map[string]Endpoint{}, Waypoint: gatewayOf(s.Waypoint), Canonical: s.Canonical,
		LoadBalancer: &LoadBalancer{Mode: modes[s.LoadBalancing.Mode], HealthPolicy: healths[s.LoadBalancing.AllowUnhealthy]},
		IPFamilies:   families[s.Families], Visibility: "Public", VisibleIn: s.VisibleIn,
	}
	if s.NamespaceOnly {
		out.Visibility = "Namespace"
	}
	for _, a := range s.Addresses {
		if a.Prefix.IsSingleIP() {
			out.VIPs = append(out.VIPs, a.Network+"/"+a.Prefix.Addr().String())
		} else {
			out.CIDRVIPs = append(out.CIDRVIPs, a.Network+"/"+a.Prefix.String())
		}
	}
	for _, e := range v.Endpoints(s.Key()) {
		out.Endpoints[e.Workload.UID] = Endpoint{e.Workload.UID, portsOf(e.Ports), status(e.Workload.Unhealthy)}
	}
	for _, w := range s.WeightedWaypoints {
		out.WeightedWayoints = append(out.WeightedWayoints, WeightedWaypoint{*gatewayOf(w.Destination), w.Weight})
	}
	for _, id := range s.SubjectAltNames {
		out.SubjectAltNames = append(out.SubjectAltNames, id.String())
	}
	for _, p := range s.LoadBalancing.Preference {
		out.LoadBalancer.RoutingPreferences = append(out.LoadBalancer.RoutingPreferences, scopes[p])
	}
	return out
}

// service reads the parts that a local file may set.
func (s *Service) service() (*mesh.Service, error) {
	out := &mesh.Service{Name: s.Name, Namespace: s.Namespace, Hostname: s.Hostname, Canonical: s.Canonical}
	var err error
	if _, err = mesh.ParseServiceKey(out.Key().String()); err != nil {
		return nil, err
	}
	if out.Ports, err = s.Ports.list(); err != nil {
		return nil, fmt.Errorf("service %s: %w", out.Key(), err)
	}
	if out.Waypoint, err = s.Waypoint.gateway(); err != nil {
		return nil, fmt.Errorf("service %s: waypoint: %w", out.Key(), err)
	}
	for _, text := range append(append([]string(nil), s.VIPs...), s.CIDRVIPs...) {
		network, address, _ := strings.Cut(text, "/")
		prefix, err := parsePrefix(address)
		if err != nil {
			return nil, fmt.Errorf("service %s: address %q: %w", out.Key(), text, err)
		}
		out.Addresses = append(out.Addresses, mesh.NetworkPrefix{Network: network, Prefix: prefix})
	}
	return out, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

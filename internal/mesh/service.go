package mesh

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// NetworkPrefix is a virtual address (a full-length prefix) or a CIDR of them,
// within a network.
type NetworkPrefix struct {
	Network string
	Prefix  netip.Prefix
}

// Scope is one step of a locality preference, numbered as on the wire.
type Scope uint8

// The scopes.
const (
	ScopeUnspecified Scope = iota
	ScopeRegion
	ScopeZone
	ScopeSubzone
	ScopeNode
	ScopeCluster
	ScopeNetwork
)

// BalancingMode says how the locality preference binds, numbered as on the wire.
type BalancingMode uint8

// The modes: any endpoint; only full matches; the best-matching group; no
// balancing, straight to the dialled address.
const (
	BalanceAny BalancingMode = iota
	BalanceStrict
	BalanceFailover
	BalancePassthrough
)

// LoadBalancing is a service's choice of endpoints.
type LoadBalancing struct {
	Preference []Scope
	Mode       BalancingMode
	// AllowUnhealthy is publishNotReadyAddresses.
	AllowUnhealthy bool
}

// Families is the set of address families of a service, numbered as on the wire.
type Families uint8

// The address families.
const (
	FamiliesAutomatic Families = iota
	FamiliesIPv4
	FamiliesIPv6
	FamiliesDual
)

// WeightedWaypoint is one of several waypoints that share a service.
type WeightedWaypoint struct {
	Destination GatewayAddress
	Weight      uint32
}

// Service is a hostname with virtual addresses.
type Service struct {
	Name, Namespace, Hostname string
	// Addresses are the VIPs; none means headless.
	Addresses []NetworkPrefix
	Ports     []Port
	// DatagramPorts are those of UDP; Ports are those of TCP.
	DatagramPorts []Port
	// SubjectAltNames are further identities its endpoints may have.
	SubjectAltNames   []spiffe.ID
	Waypoint          GatewayAddress
	WeightedWaypoints []WeightedWaypoint
	LoadBalancing     LoadBalancing
	// Affinity is how long a client keeps the endpoint that it got, since it last
	// connected; zero is not at all.
	Affinity           time.Duration
	Families           Families
	Canonical          bool
	IngressUseWaypoint bool
	// NamespaceOnly hides it from clients of other namespaces, or if there are
	// VisibleIn, from those of all namespaces but these.
	NamespaceOnly bool
	VisibleIn     []string
}

// VisibleTo reports whether clients of a namespace know the service.
func (s *Service) VisibleTo(namespace string) bool {
	switch {
	case !s.NamespaceOnly:
		return true
	case len(s.VisibleIn) == 0:
		return s.Namespace == namespace
	}
	return slices.Contains(s.VisibleIn, namespace)
}

// Key is its resource name.
func (s *Service) Key() ServiceKey { return ServiceKey{s.Namespace, s.Hostname} }

// Port finds a declared service port.
func (s *Service) Port(p uint16) (Port, bool) {
	return find(s.Ports, p)
}

// Target maps a service port to that of an endpoint: by the endpoint's own
// map, else by the service's. 0 means that it does not serve the port.
func (s *Service) Target(ports []Port, port uint16) uint16 {
	for _, p := range ports {
		if p.Service == port && p.Target != 0 {
			return p.Target
		}
	}
	p, _ := s.Port(port)
	return p.Target
}

package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// TunnelProtocol is how a workload accepts connections from the mesh.
type TunnelProtocol uint8

// The tunnel protocols; the zero value is plain TCP.
const (
	TunnelNone TunnelProtocol = iota
	TunnelHBONE
)

// String is the name shown to users.
func (p TunnelProtocol) String() string {
	if p == TunnelHBONE {
		return "HBONE"
	}
	return "TCP"
}

// NetworkMode says whether a workload's addresses identify it.
type NetworkMode uint8

// The network modes. A host-network workload shares its node's addresses, so
// it is never looked up by them (dataplane spec 2.3).
const (
	NetworkStandard NetworkMode = iota
	NetworkHost
)

// WorkloadType is the kind of the object that made the workload.
type WorkloadType uint8

// The workload types, numbered as on the wire.
const (
	WorkloadDeployment WorkloadType = iota
	WorkloadCronJob
	WorkloadPod
	WorkloadJob
)

// String is the lower-case name used in baggage.
func (t WorkloadType) String() string {
	return [...]string{"deployment", "cronjob", "pod", "job"}[t&3]
}

// Locality is where a node stands.
type Locality struct {
	Region, Zone, Subzone string
}

// ServiceKey names a service; its text form is "namespace/hostname".
type ServiceKey struct {
	Namespace, Hostname string
}

// ParseServiceKey reads "namespace/hostname".
func ParseServiceKey(s string) (ServiceKey, error) {
	ns, host, ok := strings.Cut(s, "/")
	if !ok || ns == "" || host == "" || strings.Contains(host, "/") {
		return ServiceKey{}, fmt.Errorf("service key %q: want namespace/hostname", s)
	}
	return ServiceKey{ns, host}, nil
}

// String is "namespace/hostname".
func (k ServiceKey) String() string { return k.Namespace + "/" + k.Hostname }

// Port maps a service's port to a workload's.
type Port struct {
	// Service is the port clients dial.
	Service uint16
	// Target is the container's port; 0 on a service means that it is named
	// and each workload's own map tells it.
	Target uint16
	// App is the declared application protocol.
	App AppProtocol
}

// AppProtocol is a port's declared application protocol, numbered as on the wire.
type AppProtocol uint8

// The application protocols.
const (
	AppUnknown AppProtocol = iota
	AppHTTP11
	AppHTTP2
	AppGRPC
	AppTCP
	AppTLS
)

// GatewayAddress refers to a waypoint or network gateway, either by service
// hostname or by address.
type GatewayAddress struct {
	// Service is set when the reference is by hostname.
	Service ServiceKey
	// Network and Address are set when the reference is by address.
	Network string
	Address netip.Addr
	// Port is the HBONE port, normally 15008.
	Port uint16
}

// IsZero reports whether nothing is referred to.
func (g GatewayAddress) IsZero() bool { return g == GatewayAddress{} }

// String is "namespace/hostname" or "network/address".
func (g GatewayAddress) String() string {
	switch {
	case g.IsZero():
		return ""
	case g.Address.IsValid():
		return g.Network + "/" + g.Address.String()
	}
	return g.Service.String()
}

// Workload is one instance: a pod, or an endpoint that is not a pod.
type Workload struct {
	// UID is the resource name, "<cluster>//Pod/<namespace>/<name>" for a pod.
	UID             string
	Name, Namespace string
	// TrustDomain and ServiceAccount are filled (never empty) once parsed.
	TrustDomain, ServiceAccount string
	Addresses                   []netip.Addr
	// Hostname is set for endpoints known only by name.
	Hostname    string
	Network     string
	NetworkMode NetworkMode
	Tunnel      TunnelProtocol
	// NativeTunnel says that the workload itself terminates HBONE.
	NativeTunnel bool
	Waypoint     GatewayAddress
	// NetworkGateway leads to the workload's network from another one.
	NetworkGateway GatewayAddress
	// AppTunnelPort and AppTunnelProxy are the application tunnel of a
	// sandwiched waypoint: the port (0 none) and whether a PROXY header leads.
	AppTunnelPort  uint16
	AppTunnelProxy bool

	Node      string
	ClusterID string
	Locality  Locality

	CanonicalName, CanonicalRevision string
	Type                             WorkloadType
	// OwnerName is the name of the Deployment, Job, … that made it.
	OwnerName string

	// Services are the services this workload is an endpoint of, with the
	// ports it serves of each.
	Services map[ServiceKey][]Port
	// Policies are the selector-scoped policies that apply to it.
	Policies []PolicyKey
	// Unhealthy is set while the workload is not ready or is being deleted.
	Unhealthy bool
	// Capacity is the load-balancing weight; 0 is never chosen. The wire's
	// absent value is parsed to 1.
	Capacity uint32
	// Settings are what its proxy is told beside upstream's messages.
	Settings WorkloadSettings
}

// WorkloadSettings are what upstream's Workload message has no field for. The zero
// value is upstream's behaviour.
type WorkloadSettings struct {
	// RegistryOnly closes what the workload dials and the mesh does not know.
	RegistryOnly bool
	// TrustDomainAliases are further names of the mesh's trust domain.
	TrustDomainAliases []string
	// Hostname and Subdomain are the workload's own name in DNS: the first is a
	// label before the name of the headless service that the second names.
	Hostname, Subdomain string
	// Transport is over what its tunnels are made.
	Transport Transport
	// CaptureDatagrams is whether its proxy is to take its UDP, and Datagrams whether
	// it is captured, so that it accepts CONNECT-UDP (RFC 9298).
	CaptureDatagrams, Datagrams bool
	// NamedDatagramPorts are the ports of UDP that it serves of services that name
	// them instead of numbering them.
	NamedDatagramPorts []NamedPort
}

// IsZero reports whether nothing is set.
func (s WorkloadSettings) IsZero() bool {
	return !s.RegistryOnly && len(s.TrustDomainAliases) == 0 && s.Hostname == "" && s.Subdomain == "" && s.Transport == TransportAuto && !s.CaptureDatagrams && !s.Datagrams && len(s.NamedDatagramPorts) == 0
}

// Identity is whom the workload's certificate names.
func (w *Workload) Identity() spiffe.ID {
	return spiffe.ID{TrustDomain: w.TrustDomain, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount}
}

// Identities are the names that its certificate may have: its own, and the same
// under each alias of its trust domain, as long as certificates are renewed.
func (w *Workload) Identities() []spiffe.ID {
	out := []spiffe.ID{w.Identity()}
	for _, alias := range w.Settings.TrustDomainAliases {
		out = append(out, spiffe.ID{TrustDomain: alias, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount})
	}
	return out
}

// Trusts reports whether an identity is of the workload's own trust domain, by
// any of its names.
func (w *Workload) Trusts(id spiffe.ID) bool {
	return id.TrustDomain == w.TrustDomain || slices.Contains(w.Settings.TrustDomainAliases, id.TrustDomain)
}

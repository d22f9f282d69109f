package dump

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Workload is a mesh.Workload in istioctl's words.
type Workload struct {
	UID                   string       `json:"uid"`
	IPs                   []netip.Addr `json:"workloadIps"`
	Protocol              string       `json:"protocol"`
	NetworkMode           string       `json:"networkMode,omitempty"`
	Name                  string       `json:"name"`
	Namespace             string       `json:"namespace"`
	ServiceAccount        string       `json:"serviceAccount"`
	WorkloadName          string       `json:"workloadName,omitempty"`
	WorkloadType          string       `json:"workloadType,omitempty"`
	CanonicalName         string       `json:"canonicalName,omitempty"`
	CanonicalRevision     string       `json:"canonicalRevision,omitempty"`
	Node                  string       `json:"node,omitempty"`
	Network               string       `json:"network,omitempty"`
	TrustDomain           string       `json:"trustDomain,omitempty"`
	Status                string       `json:"status,omitempty"`
	ClusterID             string       `json:"clusterId,omitempty"`
	Hostname              string       `json:"hostname,omitempty"`
	Locality              *Locality    `json:"locality,omitempty"`
	Waypoint              *Gateway     `json:"waypoint,omitempty"`
	NetworkGateway        *Gateway     `json:"networkGateway,omitempty"`
	AppTunnel             *AppTunnel   `json:"applicationTunnel,omitempty"`
	NativeTunnel          bool         `json:"nativeTunnel,omitempty"`
	AuthorizationPolicies []string     `json:"authorizationPolicies,omitempty"`
	Services              ServicePorts `json:"services,omitempty"`
	Capacity              *uint32      `json:"capacity,omitempty"`
	// Transport and UDP are ours: over what its tunnels are made, if it was said, and
	// "mesh" where its UDP is the mesh's.
	Transport string `json:"transport,omitempty"`
	UDP       string `json:"udp,omitempty"`
}

// Locality is where a node stands.
type Locality struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Subzone string `json:"subzone,omitempty"`
}

// AppTunnel is a sandwiched waypoint's tunnel.
type AppTunnel struct {
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port,omitempty"`
}

// Gateway refers to a waypoint or network gateway.
type Gateway struct {
	// Destination is "namespace/hostname" or "network/address".
	Destination string `json:"destination"`
	Port        uint16 `json:"hboneMtlsPort"`
}

// Ports maps service ports to target ports, the keys in decimal.
type Ports map[string]uint16

// ServicePorts are the services a workload serves and their ports. The dump
// names only the services; a local file gives the ports too.
type ServicePorts map[string]Ports

// MarshalJSON lists the names.
func (s ServicePorts) MarshalJSON() ([]byte, error) {
	return json.Marshal(slices.Sorted(maps.Keys(s)))
}

func workloadOf(w *mesh.Workload) Workload {
	out := Workload{
		UID: w.UID, IPs: w.Addresses, Protocol: w.Tunnel.String(),
		Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount,
		WorkloadName: w.OwnerName, WorkloadType: w.Type.String(),
		CanonicalName: w.CanonicalName, CanonicalRevision: w.CanonicalRevision,
		Node: w.Node, Network: w.Network, TrustDomain: w.TrustDomain, Status: status(w.Unhealthy),
		ClusterID: w.ClusterID, Hostname: w.Hostname, NativeTunnel: w.NativeTunnel,
		Waypoint: gatewayOf(w.Waypoint), NetworkGateway: gatewayOf(w.NetworkGateway),
		Services: ServicePorts{}, Capacity: &w.Capacity, NetworkMode: "Standard",
	}
	if t := w.Settings.Transport; t != mesh.TransportAuto {
		out.Transport = t.String()
	}
	if w.Settings.Datagrams {
		out.UDP = mesh.DatagramsInMesh
	}
	if w.NetworkMode == mesh.NetworkHost {
		out.NetworkMode = "HostNetwork"
	}
	if l := w.Locality; l != (mesh.Locality{}) {
		out.Locality = &Locality{l.Region, l.Zone, l.Subzone}
	}
	if w.AppTunnelPort != 0 || w.AppTunnelProxy {
		out.AppTunnel = &AppTunnel{Protocol: map[bool]string{true: "PROXY", false: "NONE"}[w.AppTunnelProxy], Port: w.AppTunnelPort}
	}
	for k := range w.Services {
		out.Services[k.String()] = nil
	}
	for _, p := range w.Policies {
		out.AuthorizationPolicies = append(out.AuthorizationPolicies, p.String())
	}
	return out
}

func status(unhealthy bool) string {
	if unhealthy {
		return "Unhealthy"
	}
	return "Healthy"
}

func gatewayOf(g mesh.GatewayAddress) *Gateway {
	if g.IsZero() {
		return nil
	}
	return &Gateway{g.String(), g.Port}
}

// workload reads the parts that a local file may set.
func (w *Workload) workload() (*mesh.Workload, error) {
	out := &mesh.Workload{
		UID: w.UID, Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount, TrustDomain: w.TrustDomain,
		Addresses: w.IPs, Hostname: w.Hostname, Network: w.Network, NativeTunnel: w.NativeTunnel, Node: w.Node, ClusterID: w.ClusterID,
		CanonicalName: w.CanonicalName, CanonicalRevision: w.CanonicalRevision, OwnerName: w.WorkloadName,
		Unhealthy: w.Status == status(true), Capacity: 1, Services: map[mesh.ServiceKey][]mesh.Port{},
	}
	if out.UID == "" {
		return nil, fmt.Errorf("workload %s/%s without uid", w.Namespace, w.Name)
	}
	fill(&out.ServiceAccount, "default")
	fill(&out.TrustDomain, spiffe.DefaultTrustDomain)
	fill(&out.ClusterID, "Kubernetes")
	if w.Capacity != nil {
		out.Capacity = *w.Capacity
	}
	if w.Locality != nil {
		out.Locality = mesh.Locality{Region: w.Locality.Region, Zone: w.Locality.Zone, Subzone: w.Locality.Subzone}
	}
	return out, w.references(out)
}

func (w *Workload) references(out *mesh.Workload) (err error) {
	switch strings.ToUpper(w.Protocol) {
	case "HBONE":
		out.Tunnel = mesh.TunnelHBONE
	case "", "TCP":
	default:
		return fmt.Errorf("workload %s: protocol %q is neither HBONE nor TCP", w.UID, w.Protocol)
	}
	if w.Transport != "" {
		t, ok := mesh.ParseTransport(w.Transport)
		if !ok {
			return fmt.Errorf("workload %s: transport %q is none of auto, h2 and h3", w.UID, w.Transport)
		}
		out.Settings.Transport = t
	}
	switch w.UDP {
	case mesh.DatagramsInMesh:
		out.Settings.CaptureDatagrams, out.Settings.Datagrams = true, true
	case "", mesh.DatagramsNone:
	default:
		return fmt.Errorf("workload %s: udp %q is neither mesh nor none", w.UID, w.UDP)
	}
	if w.NetworkMode == "HostNetwork" {
		out.NetworkMode = mesh.NetworkHost
	}
	if out.Waypoint, err = w.Waypoint.gateway(); err != nil {
		return fmt.Errorf("workload %s: waypoint: %w", w.UID, err)
	}
	for _, text := range w.AuthorizationPolicies {
		k, err := mesh.ParsePolicyKey(text)
		if err != nil {
			return fmt.Errorf("workload %s: %w", w.UID, err)
		}
		out.Policies = append(out.Policies, k)
	}
	for text, ports := range w.Services {
		k, err := mesh.ParseServiceKey(text)
		if err != nil {
			return fmt.Errorf("workload %s: %w", w.UID, err)
		}
		if out.Services[k], err = ports.list(); err != nil {
			return fmt.Errorf("workload %s: service %s: %w", w.UID, k, err)
		}
	}
	return nil
}

func (p Ports) list() ([]mesh.Port, error) {
	var out []mesh.Port
	for _, key := range slices.Sorted(maps.Keys(p)) {
		n, err := strconv.ParseUint(key, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("port %q: %w", key, err)
		}
		out = append(out, mesh.Port{Service: uint16(n), Target: p[key]})
	}
	return out, nil
}

func portsOf(list []mesh.Port) Ports {
	out := Ports{}
	for _, p := range list {
		out[strconv.Itoa(int(p.Service))] = p.Target
	}
	return out
}

func (g *Gateway) gateway() (mesh.GatewayAddress, error) {
	if g == nil {
		return mesh.GatewayAddress{}, nil
	}
	out := mesh.GatewayAddress{Port: g.Port}
	first, second, _ := strings.Cut(g.Destination, "/")
	if a, err := netip.ParseAddr(second); err == nil {
		out.Network, out.Address = first, a
		return out, nil
	}
	var err error
	out.Service, err = mesh.ParseServiceKey(g.Destination)
	return out, err
}

func fill(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

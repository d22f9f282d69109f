package wire

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/wire/workloadpb"
)

// Defaults that the wire leaves empty (dataplane spec 4.8).
const (
	defaultServiceAccount = "default"
	defaultCluster        = "Kubernetes"
)

// MarshalWorkload writes an Address resource that holds a workload. Its name
// is the workload's UID.
func MarshalWorkload(w *mesh.Workload) []byte {
	return marshal(&workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: writeWorkload(w)}})
}

// UnmarshalAddress reads an Address resource: exactly one of the results is
// set, or the error says what is wrong with it.
func UnmarshalAddress(body []byte) (*mesh.Workload, *mesh.Service, error) {
	var a workloadpb.Address
	if err := proto.Unmarshal(body, &a); err != nil {
		return nil, nil, fmt.Errorf("decoding address: %w", err)
	}
	switch t := a.GetType().(type) {
	case *workloadpb.Address_Workload:
		w, err := readWorkload(t.Workload)
		if err != nil {
			return nil, nil, fmt.Errorf("workload: %w", err)
		}
		return w, nil, nil
	case *workloadpb.Address_Service:
		s, err := readService(t.Service)
		if err != nil {
			return nil, nil, fmt.Errorf("service: %w", err)
		}
		return nil, s, nil
	}
	return nil, nil, errors.New("an address that is neither workload nor service")
}

func writeWorkload(w *mesh.Workload) *workloadpb.Workload {
	out := &workloadpb.Workload{
		Uid:               w.UID,
		Name:              w.Name,
		Namespace:         w.Namespace,
		Hostname:          w.Hostname,
		Network:           w.Network,
		TunnelProtocol:    workloadpb.TunnelProtocol(w.Tunnel),
		TrustDomain:       unless(w.TrustDomain, spiffe.DefaultTrustDomain),
		ServiceAccount:    unless(w.ServiceAccount, defaultServiceAccount),
		Waypoint:          writeGateway(w.Waypoint),
		NetworkGateway:    writeGateway(w.NetworkGateway),
		Node:              w.Node,
		CanonicalName:     w.CanonicalName,
		CanonicalRevision: w.CanonicalRevision,
		WorkloadType:      workloadpb.WorkloadType(w.Type),
		WorkloadName:      w.OwnerName,
		NativeTunnel:      w.NativeTunnel,
		ClusterId:         unless(w.ClusterID, defaultCluster),
		NetworkMode:       workloadpb.NetworkMode(w.NetworkMode),
		Extensions:        writeSettings(w.Settings),
	}
	for _, a := range w.Addresses {
		out.Addresses = append(out.Addresses, a.AsSlice())
	}
	if w.AppTunnelPort != 0 || w.AppTunnelProxy {
		out.ApplicationTunnel = &workloadpb.ApplicationTunnel{Port: uint32(w.AppTunnelPort)}
		if w.AppTunnelProxy {
			out.ApplicationTunnel.Protocol = workloadpb.ApplicationTunnel_PROXY
		}
	}
	if len(w.Services) > 0 {
		out.Services = make(map[string]*workloadpb.PortList, len(w.Services))
		for k, ports := range w.Services {
			out.Services[k.String()] = &workloadpb.PortList{Ports: writePorts(ports)}
		}
	}
	for _, p := range w.Policies {
		out.AuthorizationPolicies = append(out.AuthorizationPolicies, p.String())
	}
	if w.Unhealthy {
		out.Status = workloadpb.WorkloadStatus_UNHEALTHY
	}
	if w.Locality != (mesh.Locality{}) {
		out.Locality = &workloadpb.Locality{Region: w.Locality.Region, Zone: w.Locality.Zone, Subzone: w.Locality.Subzone}
	}
	if w.Capacity != 1 {
		out.Capacity = wrapperspb.UInt32(w.Capacity)
	}
	return out
}

func readWorkload(in *workloadpb.Workload) (*mesh.Workload, error) {
	if err := checkWorkload(in); err != nil {
		return nil, err
	}
	w := &mesh.Workload{
		UID:               in.GetUid(),
		Name:              in.GetName(),
		Namespace:         in.GetNamespace(),
		TrustDomain:       or(in.GetTrustDomain(), spiffe.DefaultTrustDomain),
		ServiceAccount:    or(in.GetServiceAccount(), defaultServiceAccount),
		Hostname:          in.GetHostname(),
		Network:           in.GetNetwork(),
		NetworkMode:       mesh.NetworkMode(in.GetNetworkMode()),
		Tunnel:            mesh.TunnelProtocol(in.GetTunnelProtocol()),
		NativeTunnel:      in.GetNativeTunnel(),
		AppTunnelProxy:    in.GetApplicationTunnel().GetProtocol() == workloadpb.ApplicationTunnel_PROXY,
		Node:              in.GetNode(),
		ClusterID:         or(in.GetClusterId(), defaultCluster),
		Locality:          mesh.Locality{Region: in.GetLocality().GetRegion(), Zone: in.GetLocality().GetZone(), Subzone: in.GetLocality().GetSubzone()},
		CanonicalName:     in.GetCanonicalName(),
		CanonicalRevision: in.GetCanonicalRevision(),
		Type:              mesh.WorkloadType(in.GetWorkloadType()),
		OwnerName:         in.GetWorkloadName(),
		Unhealthy:         in.GetStatus() == workloadpb.WorkloadStatus_UNHEALTHY,
		Capacity:          1,
	}
	if in.GetCapacity() != nil {
		w.Capacity = in.GetCapacity().GetValue()
	}
	return w, readWorkloadParts(w, in)
}

// readWorkloadParts reads what needs parsing.
func readWorkloadParts(w *mesh.Workload, in *workloadpb.Workload) (err error) {
	for _, b := range in.GetAddresses() {
		a, err := readAddr(b)
		if err != nil {
			return err
		}
		w.Addresses = append(w.Addresses, a)
	}
	if w.Waypoint, err = readGateway(in.GetWaypoint()); err != nil {
		return fmt.Errorf("waypoint: %w", err)
	}
	if w.NetworkGateway, err = readGateway(in.GetNetworkGateway()); err != nil {
		return fmt.Errorf("network gateway: %w", err)
	}
	if len(w.Addresses) == 0 && w.Hostname == "" && w.NetworkGateway.IsZero() {
		return errors.New("neither address nor hostname nor network gateway")
	}
	if w.AppTunnelPort, err = readPort(in.GetApplicationTunnel().GetPort()); err != nil {
		return fmt.Errorf("application tunnel: %w", err)
	}
	if w.Settings, err = readSettings(in.GetExtensions()); err != nil {
		return err
	}
	for _, text := range in.GetAuthorizationPolicies() {
		k, err := mesh.ParsePolicyKey(text)
		if err != nil {
			return err
		}
		w.Policies = append(w.Policies, k)
	}
	if n := len(in.GetServices()); n > 0 {
		w.Services = make(map[mesh.ServiceKey][]mesh.Port, n)
	}
	for text, list := range in.GetServices() {
		k, err := mesh.ParseServiceKey(text)
		if err != nil {
			return err
		}
		if w.Services[k], err = readPorts(list.GetPorts()); err != nil {
			return fmt.Errorf("service %s: %w", k, err)
		}
	}
	return nil
}

func checkWorkload(in *workloadpb.Workload) error {
	if in.GetUid() == "" {
		return errors.New("no uid")
	}
	if in.GetTunnelProtocol() == workloadpb.TunnelProtocol_LEGACY_ISTIO_MTLS {
		return errors.New("tunnel protocol LEGACY_ISTIO_MTLS is not supported")
	}
	return errors.Join(
		known("tunnel protocol", int32(in.GetTunnelProtocol()), workloadpb.TunnelProtocol_name),
		known("network mode", int32(in.GetNetworkMode()), workloadpb.NetworkMode_name),
		known("workload type", int32(in.GetWorkloadType()), workloadpb.WorkloadType_name),
		known("status", int32(in.GetStatus()), workloadpb.WorkloadStatus_name),
		known("application tunnel protocol", int32(in.GetApplicationTunnel().GetProtocol()), workloadpb.ApplicationTunnel_Protocol_name),
	)
}

func writePorts(ports []mesh.Port) []*workloadpb.Port {
	out := make([]*workloadpb.Port, len(ports))
	for i, p := range ports {
		out[i] = &workloadpb.Port{ServicePort: uint32(p.Service), TargetPort: uint32(p.Target), AppProtocol: workloadpb.AppProtocol(p.App)}
	}
	return out
}

func readPorts(in []*workloadpb.Port) ([]mesh.Port, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]mesh.Port, len(in))
	for i, p := range in {
		service, err1 := readPort(p.GetServicePort())
		target, err2 := readPort(p.GetTargetPort())
		err3 := known("application protocol", int32(p.GetAppProtocol()), workloadpb.AppProtocol_name)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		out[i] = mesh.Port{Service: service, Target: target, App: mesh.AppProtocol(p.GetAppProtocol())}
	}
	return slices.Clip(out), nil
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func unless(s, implied string) string {
	if s == implied {
		return ""
	}
	return s
}

package wire

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/wire/workloadpb"
)

// MarshalService writes an Address resource that holds a service. Its name is
// the text of the service's key.
func MarshalService(s *mesh.Service) []byte {
	return marshal(&workloadpb.Address{Type: &workloadpb.Address_Service{Service: writeService(s)}})
}

func writeService(s *mesh.Service) *workloadpb.Service {
	out := &workloadpb.Service{
		Name:               s.Name,
		Namespace:          s.Namespace,
		Hostname:           s.Hostname,
		Ports:              writePorts(s.Ports),
		Waypoint:           writeGateway(s.Waypoint),
		LoadBalancing:      writeBalancing(s.LoadBalancing),
		IpFamilies:         workloadpb.IPFamilies(s.Families),
		Canonical:          s.Canonical,
		IngressUseWaypoint: s.IngressUseWaypoint,
		Extensions:         writeServiceSettings(s),
	}
	for _, a := range s.Addresses {
		na := &workloadpb.NetworkAddress{Network: a.Network, Address: a.Prefix.Addr().AsSlice()}
		if !a.Prefix.IsSingleIP() {
			na.Length = proto.Uint32(uint32(a.Prefix.Bits()))
		}
		out.Addresses = append(out.Addresses, na)
	}
	for _, id := range s.SubjectAltNames {
		out.SubjectAltNames = append(out.SubjectAltNames, id.String())
	}
	for _, w := range s.WeightedWaypoints {
		out.WeightedWaypoints = append(out.WeightedWaypoints, &workloadpb.WeightedWaypoint{
			Destination: writeGateway(w.Destination), Weight: w.Weight,
		})
	}
	if s.NamespaceOnly {
		out.Visibility = workloadpb.Visibility_NAMESPACE
	}
	return out
}

func writeBalancing(lb mesh.LoadBalancing) *workloadpb.LoadBalancing {
	if len(lb.Preference) == 0 && lb.Mode == mesh.BalanceAny && !lb.AllowUnhealthy {
		return nil
	}
	out := &workloadpb.LoadBalancing{Mode: workloadpb.LoadBalancing_Mode(lb.Mode)}
	for _, s := range lb.Preference {
		out.RoutingPreference = append(out.RoutingPreference, workloadpb.LoadBalancing_Scope(s))
	}
	if lb.AllowUnhealthy {
		out.HealthPolicy = workloadpb.LoadBalancing_ALLOW_ALL
	}
	return out
}

func readService(in *workloadpb.Service) (*mesh.Service, error) {
	if in.GetNamespace() == "" || in.GetHostname() == "" {
		return nil, errors.New("no namespace or no hostname")
	}
	if err := known("ip families", int32(in.GetIpFamilies()), workloadpb.IPFamilies_name); err != nil {
		return nil, err
	}
	s := &mesh.Service{
		Name:               in.GetName(),
		Namespace:          in.GetNamespace(),
		Hostname:           in.GetHostname(),
		Families:           mesh.Families(in.GetIpFamilies()),
		Canonical:          in.GetCanonical(),
		IngressUseWaypoint: in.GetIngressUseWaypoint(),
		// A value of a later protocol is read as public, as upstream does:
		// visibility chooses between names, it protects nothing.
		NamespaceOnly: in.GetVisibility() == workloadpb.Visibility_NAMESPACE,
	}
	return s, readServiceParts(s, in)
}

func readServiceParts(s *mesh.Service, in *workloadpb.Service) (err error) {
	for _, a := range in.GetAddresses() {
		p, err := readVIP(a)
		if err != nil {
			return err
		}
		s.Addresses = append(s.Addresses, p)
	}
	if s.Ports, err = readPorts(in.GetPorts()); err != nil {
		return err
	}
	if err := readServiceSettings(s, in.GetExtensions()); err != nil {
		return err
	}
	if s.LoadBalancing, err = readBalancing(in.GetLoadBalancing()); err != nil {
		return err
	}
	for _, text := range in.GetSubjectAltNames() {
		id, err := spiffe.Parse(text)
		if err != nil {
			return err
		}
		s.SubjectAltNames = append(s.SubjectAltNames, id)
	}
	if s.Waypoint, err = readGateway(in.GetWaypoint()); err != nil {
		return fmt.Errorf("waypoint: %w", err)
	}
	for _, w := range in.GetWeightedWaypoints() {
		g, err := readGateway(w.GetDestination())
		if err == nil && g.IsZero() {
			err = errors.New("no destination")
		}
		if err != nil {
			return fmt.Errorf("weighted waypoint: %w", err)
		}
		s.WeightedWaypoints = append(s.WeightedWaypoints, mesh.WeightedWaypoint{Destination: g, Weight: w.GetWeight()})
	}
	return nil
}

func readVIP(in *workloadpb.NetworkAddress) (mesh.NetworkPrefix, error) {
	a, err := readAddr(in.GetAddress())
	if err != nil {
		return mesh.NetworkPrefix{}, err
	}
	bits := uint32(a.BitLen())
	if in.Length != nil {
		bits = in.GetLength()
	}
	p, err := readPrefix(a.AsSlice(), bits)
	return mesh.NetworkPrefix{Network: in.GetNetwork(), Prefix: p}, err
}

func readBalancing(in *workloadpb.LoadBalancing) (mesh.LoadBalancing, error) {
	lb := mesh.LoadBalancing{
		Mode:           mesh.BalancingMode(in.GetMode()),
		AllowUnhealthy: in.GetHealthPolicy() == workloadpb.LoadBalancing_ALLOW_ALL,
	}
	err := errors.Join(
		known("balancing mode", int32(in.GetMode()), workloadpb.LoadBalancing_Mode_name),
		known("health policy", int32(in.GetHealthPolicy()), workloadpb.LoadBalancing_HealthPolicy_name),
	)
	for _, s := range in.GetRoutingPreference() {
		if s == workloadpb.LoadBalancing_UNSPECIFIED_SCOPE {
			err = errors.Join(err, errors.New("an unspecified routing scope"))
		}
		err = errors.Join(err, known("routing scope", int32(s), workloadpb.LoadBalancing_Scope_name))
		lb.Preference = append(lb.Preference, mesh.Scope(s))
	}
	return lb, err
}

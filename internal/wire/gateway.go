package wire

import (
	"errors"
	"fmt"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire/workloadpb"
)

// hbonePort is what a gateway without a port is dialled at.
const hbonePort = 15008

func writeGateway(g mesh.GatewayAddress) *workloadpb.GatewayAddress {
	if g.IsZero() {
		return nil
	}
	out := &workloadpb.GatewayAddress{HboneMtlsPort: uint32(g.Port)}
	if g.Address.IsValid() {
		out.Destination = &workloadpb.GatewayAddress_Address{Address: &workloadpb.NetworkAddress{
			Network: g.Network, Address: g.Address.AsSlice(),
		}}
	} else {
		out.Destination = &workloadpb.GatewayAddress_Hostname{Hostname: &workloadpb.NamespacedHostname{
			Namespace: g.Service.Namespace, Hostname: g.Service.Hostname,
		}}
	}
	return out
}

// readGateway refuses a reference without a destination: taken for "none" it
// would let traffic pass by a waypoint.
func readGateway(in *workloadpb.GatewayAddress) (g mesh.GatewayAddress, err error) {
	if in == nil {
		return g, nil
	}
	if g.Port, err = readPort(in.GetHboneMtlsPort()); err != nil {
		return g, err
	}
	if g.Port == 0 {
		g.Port = hbonePort
	}
	switch d := in.GetDestination().(type) {
	case *workloadpb.GatewayAddress_Hostname:
		g.Service = mesh.ServiceKey{Namespace: d.Hostname.GetNamespace(), Hostname: d.Hostname.GetHostname()}
		if g.Service.Namespace == "" || g.Service.Hostname == "" {
			return g, fmt.Errorf("an incomplete hostname %q", g.Service)
		}
	case *workloadpb.GatewayAddress_Address:
		g.Network = d.Address.GetNetwork()
		if g.Address, err = readAddr(d.Address.GetAddress()); err != nil {
			return g, err
		}
	default:
		return g, errors.New("no destination")
	}
	return g, nil
}

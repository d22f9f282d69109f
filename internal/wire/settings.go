package wire

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire/settingspb"
	"github.com/ambit-mesh/ambit/internal/wire/workloadpb"
)

// settingsName names our extension of a workload.
const settingsName = "ambit.workload"

// writeSettings is nothing for a workload that has none, so that its body is
// the one that an upstream control plane would write.
func writeSettings(s mesh.WorkloadSettings) []*workloadpb.Extension {
	if s.IsZero() {
		return nil
	}
	m := &settingspb.Settings{
		RegistryOnly: s.RegistryOnly, TrustDomainAliases: s.TrustDomainAliases, Hostname: s.Hostname, Subdomain: s.Subdomain,
		Transport: settingspb.Transport(s.Transport), CaptureDatagrams: s.CaptureDatagrams, Datagrams: s.Datagrams,
	}
	for _, p := range s.NamedDatagramPorts {
		m.NamedDatagramPorts = append(m.NamedDatagramPorts, &settingspb.DatagramPort{Of: p.Of.String(), Service: uint32(p.Service), Target: uint32(p.Target)})
	}
	return []*workloadpb.Extension{{Name: settingsName, Config: &anypb.Any{
		TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: marshal(m),
	}}}
}

// readSettings passes over the extensions of others, and over fields of a later
// version of ours; ours in a form that cannot be read is refused.
func readSettings(in []*workloadpb.Extension) (s mesh.WorkloadSettings, err error) {
	for _, e := range in {
		if e.GetName() != settingsName {
			continue
		}
		var m settingspb.Settings
		if err := e.GetConfig().UnmarshalTo(&m); err != nil {
			return mesh.WorkloadSettings{}, fmt.Errorf("extension %s: %w", settingsName, err)
		}
		s = mesh.WorkloadSettings{
			RegistryOnly: m.GetRegistryOnly(), TrustDomainAliases: m.GetTrustDomainAliases(), Hostname: m.GetHostname(), Subdomain: m.GetSubdomain(),
			Transport: transport(m.GetTransport()), CaptureDatagrams: m.GetCaptureDatagrams(), Datagrams: m.GetDatagrams(),
		}
		for _, p := range m.GetNamedDatagramPorts() {
			k, err1 := mesh.ParseServiceKey(p.GetOf())
			port, err2 := readDatagramPort(p)
			if err := errors.Join(err1, err2); err != nil {
				return mesh.WorkloadSettings{}, fmt.Errorf("extension %s: %w", settingsName, err)
			}
			s.NamedDatagramPorts = append(s.NamedDatagramPorts, mesh.NamedPort{Of: k, Service: port.Service, Target: port.Target})
		}
	}
	return s, nil
}

func writeDatagramPorts(ports []mesh.Port) []*settingspb.DatagramPort {
	out := make([]*settingspb.DatagramPort, len(ports))
	for i, p := range ports {
		out[i] = &settingspb.DatagramPort{Service: uint32(p.Service), Target: uint32(p.Target)}
	}
	return out
}

func readDatagramPorts(in []*settingspb.DatagramPort) ([]mesh.Port, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]mesh.Port, len(in))
	var err error
	for i, p := range in {
		if out[i], err = readDatagramPort(p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readDatagramPort(p *settingspb.DatagramPort) (mesh.Port, error) {
	service, err1 := readPort(p.GetService())
	target, err2 := readPort(p.GetTarget())
	return mesh.Port{Service: service, Target: target}, errors.Join(err1, err2)
}

// transport is one of a later version's as if nothing had been said.
func transport(t settingspb.Transport) mesh.Transport {
	if t < 0 || t > settingspb.Transport(mesh.TransportH3) {
		return mesh.TransportAuto
	}
	return mesh.Transport(t)
}

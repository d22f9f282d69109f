package wire

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire/settingspb"
	"github.com/ambit-mesh/ambit/internal/wire/workloadpb"
)

// serviceSettingsName names our extension of a service.
const serviceSettingsName = "ambit.service"

// writeServiceSettings is nothing for a service that has none, as writeSettings.
func writeServiceSettings(s *mesh.Service) []*workloadpb.Extension {
	if s.Affinity == 0 && len(s.VisibleIn) == 0 && len(s.DatagramPorts) == 0 {
		return nil
	}
	m := &settingspb.ServiceSettings{AffinitySeconds: uint32(s.Affinity / time.Second), VisibleIn: s.VisibleIn, DatagramPorts: writeDatagramPorts(s.DatagramPorts)}
	return []*workloadpb.Extension{{Name: serviceSettingsName, Config: &anypb.Any{
		TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: marshal(m),
	}}}
}

// readServiceSettings passes over what readSettings passes over.
func readServiceSettings(s *mesh.Service, in []*workloadpb.Extension) error {
	for _, e := range in {
		if e.GetName() != serviceSettingsName {
			continue
		}
		var m settingspb.ServiceSettings
		if err := e.GetConfig().UnmarshalTo(&m); err != nil {
			return fmt.Errorf("extension %s: %w", serviceSettingsName, err)
		}
		ports, err := readDatagramPorts(m.GetDatagramPorts())
		if err != nil {
			return fmt.Errorf("extension %s: %w", serviceSettingsName, err)
		}
		s.DatagramPorts = ports
		s.Affinity, s.VisibleIn = time.Duration(m.GetAffinitySeconds())*time.Second, m.GetVisibleIn()
	}
	return nil
}

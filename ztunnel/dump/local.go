package dump

import (
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// local is the file form: workloads, services and policies in the dump's
// words (dataplane spec 4.7).
type local struct {
	Workloads []Workload `json:"workloads"`
	Services  []Service  `json:"services"`
	Policies  []Policy   `json:"policies"`
}

// ParseLocal reads the YAML that stands in for a control plane. A field that
// is not known is an error.
func ParseLocal(text []byte) (mesh.Model, error) {
	var l local
	if err := yaml.UnmarshalStrict(text, &l); err != nil {
		return mesh.Model{}, fmt.Errorf("reading local configuration: %w", err)
	}
	m := mesh.Model{
		Workloads: map[string]*mesh.Workload{},
		Services:  map[mesh.ServiceKey]*mesh.Service{},
		Policies:  map[mesh.PolicyKey]*mesh.Policy{},
	}
	for i := range l.Workloads {
		w, err := l.Workloads[i].workload()
		if err != nil {
			return mesh.Model{}, err
		}
		m.Workloads[w.UID] = w
	}
	for i := range l.Services {
		s, err := l.Services[i].service()
		if err != nil {
			return mesh.Model{}, err
		}
		m.Services[s.Key()] = s
	}
	for i := range l.Policies {
		p, err := l.Policies[i].policy()
		if err != nil {
			return mesh.Model{}, err
		}
		m.Policies[p.Key] = p
	}
	return m, nil
}

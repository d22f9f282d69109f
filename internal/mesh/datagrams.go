package mesh

// DatagramsLabel, on a pod or else its namespace, says whether the UDP of a pod of
// the mesh is the mesh's too. It is ours: Istio's API has no word for UDP.
const DatagramsLabel = "ambit.io/udp"

// DatagramsAnnotation "enabled" is the node agent's answer: the pod's UDP is
// captured, so that peers may send it through tunnels.
const DatagramsAnnotation = "ambit.io/udp-redirection"

// The values of DatagramsLabel. Without one, and with any other, UDP is left alone.
const (
	DatagramsInMesh = "mesh"
	DatagramsNone   = "none"
)

// Datagrams reads the label of a pod, or else of its namespace.
func Datagrams(pod, namespace map[string]string) bool {
	if said, ok := pod[DatagramsLabel]; ok {
		return said == DatagramsInMesh
	}
	return namespace[DatagramsLabel] == DatagramsInMesh
}

// DatagramPort finds a declared port of UDP.
func (s *Service) DatagramPort(p uint16) (Port, bool) { return find(s.DatagramPorts, p) }

// DatagramTarget maps a service's port of UDP to that of an endpoint: by the
// endpoint's own map, where the port is named, else by the service's. 0 means that
// it does not serve the port.
func (s *Service) DatagramTarget(w *Workload, port uint16) uint16 {
	declared, ok := s.DatagramPort(port)
	if !ok || declared.Target != 0 {
		return declared.Target
	}
	for _, own := range w.Settings.NamedDatagramPorts {
		if own.Of == s.Key() && own.Service == port {
			return own.Target
		}
	}
	return 0
}

// NamedPort is a port that a service names, and what number it has at a workload.
type NamedPort struct {
	Of              ServiceKey
	Service, Target uint16
}

func find(ports []Port, service uint16) (Port, bool) {
	for _, p := range ports {
		if p.Service == service {
			return p, true
		}
	}
	return Port{}, false
}

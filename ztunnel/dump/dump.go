package dump

import (
	"time"

	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/kept"
)

// Dump is the whole answer to /config_dump.
type Dump struct {
	Workloads      []Workload        `json:"workloads"`
	Services       []Service         `json:"services"`
	Policies       []Policy          `json:"policies"`
	StagedServices struct{}          `json:"stagedServices"`
	StaticConfig   struct{}          `json:"staticConfig"`
	Certificates   []Certificate     `json:"certificates"`
	WorkloadState  map[string]State  `json:"workloadState"`
	ControlPlane   any               `json:"controlPlane,omitempty"` // ours
	Kept           Kept              `json:"kept"`                   // ours
	Version        map[string]string `json:"version"`
	Config         any               `json:"config"`
}

// Kept is how old the state is, and how it is kept for the next start.
type Kept struct {
	// Kept says that the state is an earlier process's, as the control plane has
	// not been reached since.
	Kept bool `json:"kept"`
	// Confirmed is when the control plane last said that the state is so.
	Confirmed time.Time   `json:"confirmed"`
	Age       string      `json:"age"`
	Files     kept.Status `json:"files"`
}

// Certificate is the state of one identity's.
type Certificate struct {
	Identity string `json:"identity"`
	State    string `json:"state"`
	Chain    []Cert `json:"certChain"`
	Roots    []Cert `json:"rootCerts"`
}

// Cert is one X.509 certificate.
type Cert struct {
	// PEM is base64 again, as istioctl wants it.
	PEM            []byte    `json:"pem"`
	SerialNumber   string    `json:"serialNumber"`
	ValidFrom      time.Time `json:"validFrom"`
	ExpirationTime time.Time `json:"expirationTime"`
}

// State is one pod's.
type State struct {
	State string `json:"state"`
	// Error is why a pod is pending; ours.
	Error string `json:"error,omitempty"`
	// DNS is why the pod's names are not answered by the mesh, though the pod
	// is served; ours.
	DNS         string      `json:"dns,omitempty"`
	Connections Connections `json:"connections"`
	Info        Info        `json:"info"`
}

// Info names a pod.
type Info struct {
	Name           string `json:"name"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
}

// Connections are a pod's live ones.
type Connections struct {
	Inbound  []Connection `json:"inbound"`
	Outbound []Connection `json:"outbound"`
}

// Connection is one live connection.
type Connection struct {
	Src         string `json:"src"`
	OriginalDst string `json:"originalDst"`
	ActualDst   string `json:"actualDst"`
	Protocol    string `json:"protocol"`
	// Peer and Reason are ours: the identity at the other end, and the verdict.
	Peer   string `json:"peer,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// AddView fills in what the control plane sent.
func (d *Dump) AddView(v *view.View) {
	d.Workloads, d.Services, d.Policies = []Workload{}, []Service{}, []Policy{}
	for _, w := range v.Workloads() {
		d.Workloads = append(d.Workloads, workloadOf(w))
	}
	for _, s := range v.Services() {
		d.Services = append(d.Services, serviceOf(v, s))
	}
	for _, p := range v.AllPolicies() {
		d.Policies = append(d.Policies, policyOf(p))
	}
}

// AddPod fills in one pod; of two with one UID, as while the older drains, the
// connections are joined.
func (d *Dump) AddPod(p zds.Pod, state string, err error, live []connections.Info) {
	s, known := d.WorkloadState[p.UID]
	if !known {
		s = State{Connections: Connections{Inbound: []Connection{}, Outbound: []Connection{}}, Info: Info{p.Name, p.Namespace, p.ServiceAccount}}
	}
	s.State = state
	if err != nil {
		s.Error = err.Error()
	}
	for _, i := range live {
		c := Connection{Src: i.Source.String(), OriginalDst: i.Original.String(), ActualDst: i.Actual.String(), Peer: i.Peer.String(), Reason: i.Reason}
		c.Protocol = protocol(i)
		if i.Direction == telemetry.Outbound {
			s.Connections.Outbound = append(s.Connections.Outbound, c)
		} else {
			s.Connections.Inbound = append(s.Connections.Inbound, c)
		}
	}
	if d.WorkloadState == nil {
		d.WorkloadState = map[string]State{}
	}
	d.WorkloadState[p.UID] = s
}

// protocol is upstream's word, and our own for UDP.
func protocol(i connections.Info) string {
	switch {
	case i.HBONE && i.Datagrams:
		return "HBONE-UDP"
	case i.HBONE:
		return "HBONE"
	case i.Datagrams:
		return "UDP"
	}
	return "TCP"
}

// AddTrouble fills in why a pod's names are not answered by the mesh.
func (d *Dump) AddTrouble(p zds.Pod, dns string) {
	if s, known := d.WorkloadState[p.UID]; known && dns != "" {
		s.DNS = dns
		d.WorkloadState[p.UID] = s
	}
}

package balance

import (
	"cmp"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/circuit"
)

// CircuitStatus is one endpoint's breaker, for users.
type CircuitStatus struct {
	Service  mesh.ServiceKey `json:"service"`
	Port     uint16          `json:"port"`
	Workload string          `json:"workload"` // UID
	State    circuit.State   `json:"state"`
	// Percent is how much of its part the endpoint gets.
	Percent int `json:"percent"`
	// Reason and Cause are of the last ejection, empty without one.
	Reason circuit.Reason `json:"reason,omitempty"`
	Cause  string         `json:"cause,omitempty"`
	// Since is when the state, or a ramping one's step, began; zero if it was
	// never left. Until is when an open one is probed first.
	Since     time.Time     `json:"since,omitzero"`
	Until     time.Time     `json:"until,omitzero"`
	Ejections int           `json:"ejections"`
	InFlight  int64         `json:"inFlight"`
	Latency   time.Duration `json:"latency"`
}

// Circuits lists the breakers of every endpoint that is known, by service,
// port and workload.
func (b *Balancer) Circuits() []CircuitStatus {
	b.mu.RLock()
	groups := make([]*group, 0, len(b.groups))
	for _, g := range b.groups {
		groups = append(groups, g)
	}
	b.mu.RUnlock()
	var all []CircuitStatus
	now := time.Now()
	for _, g := range groups {
		all = g.circuits(all, now)
	}
	slices.SortFunc(all, func(a, b CircuitStatus) int {
		return cmp.Or(cmp.Compare(a.Service.Namespace, b.Service.Namespace), cmp.Compare(a.Service.Hostname, b.Service.Hostname),
			cmp.Compare(a.Port, b.Port), cmp.Compare(a.Workload, b.Workload))
	})
	return all
}

func (g *group) circuits(all []CircuitStatus, now time.Time) []CircuitStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.endpoints {
		if e.listed {
			all = append(all, e.status(g.key, now))
		}
	}
	return all
}

func (e *endpoint) status(k groupKey, now time.Time) CircuitStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := CircuitStatus{
		Service: k.service, Port: k.port, Workload: e.uid,
		State: e.circuit.State(), Percent: int(100 * e.circuit.Share() / circuit.Whole), Reason: e.circuit.Reason(), Cause: e.circuit.Cause(),
		Since: e.circuit.Since(), Ejections: e.circuit.Ejections(),
		InFlight: e.inFlight.Load(), Latency: time.Duration(e.slowness(now) * float64(time.Second)),
	}
	if s.State == circuit.Open {
		s.Until = e.circuit.Until()
	}
	return s
}

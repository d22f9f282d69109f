package waypoint

// dump is the answer to /config_dump.
func (p *proxy) dump() any {
	t := p.store.Table()
	return map[string]any{
		"version": p.config.Version, "gateway": p.config.Self.Service().String(), "generation": t.Generation(),
		"services": p.services(), "certificates": p.certificates(),
		"circuits": p.balancer.Circuits(), "tunnels": len(p.forward.Tunnels()),
	}
}

// dumpedService is one service that this waypoint serves.
type dumpedService struct {
	Service   string   `json:"service"`
	Ports     []uint16 `json:"ports"`
	Policies  []string `json:"policies"`
	Endpoints []string `json:"endpoints"`
}

// services are those that name this waypoint.
func (p *proxy) services() []dumpedService {
	t, out := p.store.Table(), []dumpedService{}
	for _, s := range t.View().Services() {
		if s.Waypoint.Service != p.config.Self.Service() {
			continue
		}
		d := dumpedService{Service: s.Key().String(), Ports: []uint16{}, Policies: []string{}, Endpoints: []string{}}
		for _, port := range s.Ports {
			d.Ports = append(d.Ports, port.Service)
		}
		set := t.Policies(s.Key())
		for _, policy := range set.Policies {
			d.Policies = append(d.Policies, policy.Key.String())
		}
		for _, unknown := range set.Unknown {
			d.Policies = append(d.Policies, unknown.String()+" (not understood)")
		}
		for _, e := range t.View().Endpoints(s.Key()) {
			d.Endpoints = append(d.Endpoints, e.Workload.UID)
		}
		out = append(out, d)
	}
	return out
}

func (p *proxy) certificates() []map[string]string {
	out := []map[string]string{}
	for _, s := range p.certs.List() {
		c := map[string]string{"identity": s.ID.String(), "state": string(s.State)}
		if s.Err != nil {
			c["error"] = s.Err.Error()
		}
		if s.Certificate != nil {
			c["until"] = s.Certificate.Leaf().NotAfter.String()
		}
		out = append(out, c)
	}
	return out
}

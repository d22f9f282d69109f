package terminate

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// destination is what a client asked for: a service's port, or a workload's own
// address.
type destination struct {
	service  *mesh.Service
	workload *mesh.Workload
	port     uint16
	// dialled is the address asked for; of a service asked for by name, its first.
	dialled netip.AddrPort
	app     mesh.AppProtocol
}

// badAuthority is an authority that means nothing, now and later.
type badAuthority struct{ text string }

func (e *badAuthority) Error() string {
	return fmt.Sprintf("authority %q: want address:port or name:port", e.text)
}

// resolve finds what an authority means to a client of a namespace. What this
// waypoint does not serve is an error.
func (t *Terminator) resolve(v *view.View, authority, namespace string) (destination, error) {
	host, text, err := net.SplitHostPort(authority)
	if err != nil {
		return destination{}, &badAuthority{authority}
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || host == "" {
		return destination{}, &badAuthority{authority}
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return t.service(v, v.ServiceByHostname(host, namespace), host, netip.AddrPortFrom(netip.Addr{}, uint16(port)))
	}
	self := t.Self()
	if self == nil {
		return destination{}, fmt.Errorf("the waypoint's own record has not come")
	}
	dialled := netip.AddrPortFrom(address.Unmap(), uint16(port))
	if s := v.ServiceByVIP(self.Network, address, namespace); s != nil {
		return t.service(v, s, host, dialled)
	}
	return t.pod(v, v.WorkloadByAddress(self.Network, address), self, dialled)
}

// service is the destination of a service that names this waypoint.
func (t *Terminator) service(v *view.View, s *mesh.Service, host string, dialled netip.AddrPort) (destination, error) {
	if s == nil {
		return destination{}, fmt.Errorf("%s is not known here", host)
	}
	if !t.servesService(v, s) {
		return destination{}, fmt.Errorf("service %s does not use this waypoint", s.Key())
	}
	p, ok := s.Port(dialled.Port())
	if !ok {
		return destination{}, fmt.Errorf("service %s has no port %d", s.Key(), dialled.Port())
	}
	if !dialled.Addr().IsValid() && len(s.Addresses) > 0 {
		dialled = netip.AddrPortFrom(s.Addresses[0].Prefix.Addr(), dialled.Port())
	}
	return destination{service: s, port: p.Service, dialled: dialled, app: p.App}, nil
}

// pod is the destination of a workload that names this waypoint.
func (t *Terminator) pod(v *view.View, w, self *mesh.Workload, dialled netip.AddrPort) (destination, error) {
	switch {
	case w == nil:
		return destination{}, fmt.Errorf("%s is not known here", dialled.Addr())
	case w.UID == self.UID:
		return destination{}, fmt.Errorf("%s is the waypoint itself", dialled.Addr())
	case !t.named(v, w.Waypoint, w.Namespace):
		return destination{}, fmt.Errorf("workload %s does not use this waypoint", w.UID)
	}
	return destination{workload: w, port: dialled.Port(), dialled: dialled, app: declared(v, w, dialled.Port())}, nil
}

// declared is what some service says that a workload's port speaks.
func declared(v *view.View, w *mesh.Workload, port uint16) mesh.AppProtocol {
	app := mesh.AppUnknown
	for k, ports := range w.Services {
		s := v.Service(k)
		if s == nil {
			continue
		}
		for _, p := range ports {
			if declared, ok := s.Port(p.Service); p.Target == port && ok && declared.App > app {
				app = declared.App
			}
		}
	}
	return app
}

// servesService says whether a service names this waypoint, alone or among
// others.
func (t *Terminator) servesService(v *view.View, s *mesh.Service) bool {
	if t.named(v, s.Waypoint, s.Namespace) {
		return true
	}
	for _, w := range s.WeightedWaypoints {
		if t.named(v, w.Destination, s.Namespace) {
			return true
		}
	}
	return false
}

// named says whether a reference is to this waypoint.
func (t *Terminator) named(v *view.View, g mesh.GatewayAddress, namespace string) bool {
	if g.IsZero() {
		return false
	}
	if !g.Address.IsValid() {
		return g.Service == t.Gateway
	}
	s := v.ServiceByVIP(g.Network, g.Address, namespace)
	return s != nil && s.Key() == t.Gateway
}

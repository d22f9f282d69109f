package names

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// Resolve looks a name up in the mesh. The second result is whether the mesh
// knows it (dataplane spec 2.7).
func Resolve(v *view.View, q Question) (Answer, bool) {
	if a, ok := q.expand(v, q.Name); ok {
		return a, true
	}
	for _, suffix := range q.search() {
		name, ok := strings.CutSuffix(q.Name, "."+suffix)
		if !ok {
			continue
		}
		if a, ok := q.expand(v, name); ok {
			if !strings.HasPrefix(a.Service.Hostname, "*.") {
				a.Alias = name
			}
			return a, true
		}
	}
	return Answer{}, false
}

// search is the list that Kubernetes gives to a pod's resolver.
func (q *Question) search() [3]string {
	return [3]string{q.Client.Namespace + ".svc." + q.Domain, "svc." + q.Domain, q.Domain}
}

// expand looks for a name, and for what it is short for.
func (q *Question) expand(v *view.View, name string) (Answer, bool) {
	if a, ok := q.find(v, name); ok {
		return a, true
	}
	for _, suffix := range q.expansions(name) {
		if a, ok := q.find(v, name+suffix); ok {
			return a, true
		}
	}
	return Answer{}, false
}

// expansions are what may be missing at a name's end, by how many labels it has.
func (q *Question) expansions(name string) []string {
	short := strings.HasSuffix(name, ".svc")
	switch labels := strings.Count(name, ".") + 1; {
	case labels == 1:
		return []string{"." + q.Client.Namespace + ".svc." + q.Domain}
	case labels == 2:
		return []string{".svc." + q.Domain, "." + q.Client.Namespace + ".svc." + q.Domain}
	case labels == 3 && short:
		return []string{"." + q.Domain, ".svc." + q.Domain}
	case labels == 3:
		return []string{".svc." + q.Domain}
	case labels == 4 && short:
		return []string{"." + q.Domain}
	}
	return nil
}

// find looks for the very name, as a service's, as that of a pod of one, and
// under a wildcard, the longest first. What is under the cluster's own domain no
// wildcard is for: it would take what search lists put there, and every name that
// only the cluster's DNS knows.
func (q *Question) find(v *view.View, name string) (Answer, bool) {
	if a, ok := q.service(v, name); ok {
		return a, true
	}
	first, rest, ok := strings.Cut(name, ".")
	if !ok {
		return Answer{}, false
	}
	if a, ok := q.pod(v, first, rest); ok {
		return a, true
	}
	ok = !strings.HasSuffix(name, "."+q.Domain)
	for ok && rest != "" {
		if a, ok := q.service(v, "*."+rest); ok {
			return a, true
		}
		_, rest, ok = strings.Cut(rest, ".")
	}
	return Answer{}, false
}

// service answers with a service's addresses. A service that has none is one
// whose pods are meant, if it is Kubernetes's; of any other the mesh knows
// nothing that a name could lead to.
func (q *Question) service(v *view.View, hostname string) (Answer, bool) {
	s := v.ServiceByHostname(hostname, q.Client.Namespace)
	switch {
	case s == nil:
		return Answer{}, false
	case len(s.Addresses) == 0:
		return q.headless(v, s, func(*mesh.Workload) bool { return true })
	}
	a, known := Answer{Service: s}, false
	for _, p := range s.Addresses {
		if p.Network != q.Client.Network || !p.Prefix.IsSingleIP() {
			continue
		}
		known = true
		if at := p.Prefix.Addr(); at.Is6() == q.V6 {
			a.Addresses = append(a.Addresses, at)
		}
	}
	return a, known
}

// pod answers with the address of one pod of a headless service.
func (q *Question) pod(v *view.View, hostname, service string) (Answer, bool) {
	s := v.ServiceByHostname(service, q.Client.Namespace)
	if s == nil || len(s.Addresses) > 0 {
		return Answer{}, false
	}
	return q.headless(v, s, func(w *mesh.Workload) bool {
		return w.Settings.Hostname == hostname && w.Settings.Subdomain == s.Name
	})
}

// headless answers with the addresses of those pods of a service that are
// meant. Without any the cluster's DNS is asked: it may know what the mesh has
// no word for, such as pods that serve UDP alone.
func (q *Question) headless(v *view.View, s *mesh.Service, meant func(*mesh.Workload) bool) (Answer, bool) {
	if !strings.HasSuffix(s.Hostname, ".svc."+q.Domain) {
		return Answer{}, false
	}
	a, known := Answer{Service: s}, false
	for _, e := range v.Endpoints(s.Key()) {
		w := e.Workload
		if w.Network != q.Client.Network || w.Unhealthy && !s.LoadBalancing.AllowUnhealthy || !meant(w) {
			continue
		}
		for _, at := range w.Addresses {
			known = true
			if at.Is6() == q.V6 && allowed(s.Families, at) && !slices.Contains(a.Addresses, at) {
				a.Addresses = append(a.Addresses, at)
			}
		}
	}
	return a, known
}

// allowed reports whether a service has an address's family.
func allowed(f mesh.Families, a netip.Addr) bool {
	switch f {
	case mesh.FamiliesIPv4:
		return a.Is4()
	case mesh.FamiliesIPv6:
		return a.Is6()
	case mesh.FamiliesAutomatic, mesh.FamiliesDual:
	}
	return true
}

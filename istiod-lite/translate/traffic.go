package translate

import (
	"maps"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// traffic is what users say about the endpoints of services, and which of it
// counts where.
type traffic struct {
	rules     map[objects.Key]*destination
	rulesIn   groups[string] // by namespace
	budgets   map[objects.Key]*retryPolicy
	budgetsIn groups[string]

	// speaking are the objects that speak of a service, those that count
	// first; spoken is the reverse.
	speaking map[mesh.ServiceKey]speakers
	spoken   map[objects.Ref]map[mesh.ServiceKey]bool

	out published[mesh.ServiceKey, *mesh.Traffic]
}

// speakers are the rules and the retry policies that speak of one service.
type speakers struct {
	rules, budgets []objects.Key
	// waypoint is whether anything enforces them.
	waypoint bool
}

func (s speakers) refs() []objects.Ref {
	var refs []objects.Ref
	for _, k := range s.rules {
		refs = append(refs, objects.Ref{Kind: objects.KindDestinationRule, Key: k})
	}
	for _, k := range s.budgets {
		refs = append(refs, objects.Ref{Kind: objects.KindXBackendTrafficPolicy, Key: k})
	}
	return refs
}

// newTraffic knows nothing yet; what has come out is kept for its pointers.
func newTraffic(out published[mesh.ServiceKey, *mesh.Traffic]) traffic {
	return traffic{
		rules: map[objects.Key]*destination{}, rulesIn: groups[string]{},
		budgets: map[objects.Key]*retryPolicy{}, budgetsIn: groups[string]{},
		speaking: map[mesh.ServiceKey]speakers{}, spoken: map[objects.Ref]map[mesh.ServiceKey]bool{},
		out: out,
	}
}

// dirtyTraffic is what must be made anew: objects, what counts for services,
// and what owners are told.
type dirtyTraffic struct {
	destinations, retryPolicies map[objects.Key]bool
	services                    map[mesh.ServiceKey]bool
	told                        map[objects.Ref]bool
}

func newDirtyTraffic() dirtyTraffic {
	return dirtyTraffic{
		destinations: map[objects.Key]bool{}, retryPolicies: map[objects.Key]bool{},
		services: map[mesh.ServiceKey]bool{}, told: map[objects.Ref]bool{},
	}
}

func (d *dirtyTraffic) mark(services []mesh.ServiceKey) {
	for _, k := range services {
		d.services[k] = true
	}
}

// redoTraffic follows the services, of which it reads the waypoints.
func (t *Translator) redoTraffic(d *dirtyTraffic) {
	for k := range d.destinations {
		t.redoDestination(k, d)
	}
	for k := range d.retryPolicies {
		t.redoRetryPolicy(k, d)
	}
	for k := range d.services {
		t.redoTrafficOf(k, d)
	}
	for ref := range d.told {
		t.retellTraffic(ref)
	}
}

// redoDestination converts a rule again, and marks the services that it spoke
// or speaks of.
func (t *Translator) redoDestination(k objects.Key, d *dirtyTraffic) {
	was := t.traffic.rules[k]
	delete(t.traffic.rules, k)
	t.traffic.rulesIn.del(k.Namespace, k)
	var now *destination
	if dr := t.seen.DestinationRules[k]; dr != nil {
		now = destinationRule(t.seen.Mesh, dr)
		t.traffic.rules[k] = now
		t.traffic.rulesIn.put(k.Namespace, k)
	}
	for key := range t.services.m {
		if was.speaksOf(key.Hostname) || now.speaksOf(key.Hostname) {
			d.services[key] = true
		}
	}
	d.told[objects.Ref{Kind: objects.KindDestinationRule, Key: k}] = true
}

// redoTrafficOf looks up again what counts for a service.
func (t *Translator) redoTrafficOf(k mesh.ServiceKey, d *dirtyTraffic) {
	for _, ref := range t.traffic.speaking[k].refs() {
		d.told[ref] = true
		if delete(t.traffic.spoken[ref], k); len(t.traffic.spoken[ref]) == 0 {
			delete(t.traffic.spoken, ref)
		}
	}
	delete(t.traffic.speaking, k)
	s := t.services.get(k)
	if s == nil {
		t.traffic.out.del(k)
		return
	}
	now := speakers{rules: t.destinationsFor(s), budgets: t.retryPoliciesFor(s), waypoint: !s.Waypoint.IsZero()}
	for _, ref := range now.refs() {
		d.told[ref] = true
		if t.traffic.spoken[ref] == nil {
			t.traffic.spoken[ref] = map[mesh.ServiceKey]bool{}
		}
		t.traffic.spoken[ref][k] = true
	}
	if out := t.settingsFor(s, now); out != nil {
		t.traffic.speaking[k] = now
		t.traffic.out.put(k, out)
	} else {
		t.traffic.out.del(k)
	}
}

// settingsFor puts together what counts; nil if nobody speaks. A service's own
// affinity counts where no rule says how endpoints are chosen.
func (t *Translator) settingsFor(s *mesh.Service, now speakers) *mesh.Traffic {
	if len(now.rules)+len(now.budgets) == 0 && s.Affinity == 0 {
		return nil
	}
	out := &mesh.Traffic{Service: s.Key()}
	if s.Affinity > 0 && len(now.rules) == 0 {
		out.Balancer = mesh.Balancer{Kind: mesh.BalanceHash, Hash: mesh.HashKey{SourceIP: true}}
		out.Sources = append(out.Sources, "Service/"+s.Namespace+"/"+s.Name)
	}
	if len(now.rules) > 0 {
		r := t.traffic.rules[now.rules[0]]
		out.Settings, out.Ports = r.settings, maps.Clone(r.ports)
		out.Sources = append(out.Sources, "DestinationRule/"+r.key.String())
	}
	if len(now.budgets) > 0 {
		b := t.traffic.budgets[now.budgets[0]]
		out.RetryBudget = b.budget
		for port, s := range out.Ports {
			s.RetryBudget = b.budget
			out.Ports[port] = s
		}
		out.Sources = append(out.Sources, "XBackendTrafficPolicy/"+b.key.String())
	}
	return out
}

// destinationsFor are the rules that speak of a service where it is served:
// those of its waypoint's namespace, of its own, and of the root namespace
// (controlplane spec 4.5). Only the first counts.
func (t *Translator) destinationsFor(s *mesh.Service) []objects.Key {
	at := firstOf(s.Waypoint.Service.Namespace, s.Namespace)
	var found []objects.Key
	for i, ns := range []string{at, s.Namespace, t.seen.Mesh.RootNamespace} {
		if i > 0 && ns == at || i > 1 && ns == s.Namespace {
			continue
		}
		from := len(found)
		for k := range t.traffic.rulesIn[ns] {
			if r := t.traffic.rules[k]; r.speaksOf(s.Hostname) && r.visible(at) {
				found = append(found, k)
			}
		}
		slices.SortFunc(found[from:], func(a, b objects.Key) int { return t.traffic.rules[a].compare(t.traffic.rules[b]) })
	}
	return found
}

// retellTraffic tells the owner of a rule or a retry policy what became of it.
func (t *Translator) retellTraffic(ref objects.Ref) {
	services := slices.SortedFunc(maps.Keys(t.traffic.spoken[ref]), func(a, b mesh.ServiceKey) int {
		return strings.Compare(a.String(), b.String())
	})
	switch ref.Kind {
	case objects.KindDestinationRule:
		t.tell(ref, told(t.destinationCondition(ref, services))...)
	case objects.KindXBackendTrafficPolicy:
		t.tell(ref, t.retryConditions(ref)...)
	}
}

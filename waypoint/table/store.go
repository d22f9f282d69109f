package table

import (
	"context"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// Store holds the current Table. One writer at a time changes it; anyone reads
// it. Make one with NewStore.
type Store struct {
	self    mesh.ServiceKey
	views   *view.Store
	current atomic.Pointer[Table]
	writing sync.Mutex // held while a Table is made and published
}

var _ xds.Receiver = (*Store)(nil)

// NewStore makes a Store with an empty Table for the waypoint whose service is
// self.
func NewStore(self mesh.ServiceKey) *Store {
	s := &Store{self: self, views: view.NewStore()}
	s.current.Store(&Table{
		view: s.views.View(), superseded: make(chan struct{}),
		routes: map[mesh.RouteKey]*mesh.Route{}, policies: map[mesh.PolicyKey]guard{},
		traffic: map[mesh.ServiceKey]*mesh.Traffic{}, authentications: map[mesh.PolicyKey]*mesh.Authentication{},
		attached: map[mesh.ServiceKey]*attached{},
	})
	return s
}

// Table is the current configuration. A request calls it once.
func (s *Store) Table() *Table { return s.current.Load() }

// Types are the types of resources that a Store takes, in the order in which
// to subscribe to them.
func Types() []string { return []string{xds.TypeWaypoint, xds.TypeAddress} }

// Receive applies one xDS response as one change, and returns what it would
// not take.
func (s *Store) Receive(ctx context.Context, u xds.Update) []xds.Rejection {
	s.writing.Lock()
	defer s.writing.Unlock()
	old := s.Table()
	next := *old
	if u.Generation != 0 && len(u.Upserts)+len(u.Removed) > 0 {
		next.generation = u.Generation
	}
	var rejected []xds.Rejection
	if u.Type == xds.TypeWaypoint {
		rejected = s.change(&next, u)
	} else {
		rejected = s.views.Receive(ctx, u)
		next.view = s.views.View()
	}
	s.publish(old, &next)
	return rejected
}

// Replace makes a whole model the configuration, in place of everything known.
func (s *Store) Replace(m mesh.Model) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.views.Replace(m)
	old := s.Table()
	next := &Table{
		view: s.views.View(), generation: old.generation,
		routes: maps.Clone(m.Routes), traffic: maps.Clone(m.Traffic), authentications: maps.Clone(m.Authentications),
		policies: map[mesh.PolicyKey]guard{}, attached: map[mesh.ServiceKey]*attached{},
	}
	for k, p := range m.Policies {
		if p.Scope == mesh.ScopeTargets {
			next.policies[k] = guard{policy: p}
		}
	}
	touched := map[mesh.ServiceKey]bool{}
	for _, r := range m.Routes {
		touch(touched, r)
	}
	next.attach(touched)
	next.guards, next.tokens = sharePolicies(next.policies, s.self), shareTokens(next.authentications, s.self)
	s.publish(old, next)
}

func (s *Store) publish(old, next *Table) {
	next.superseded = make(chan struct{})
	s.current.Store(next)
	close(old.superseded)
}

// Wait returns the first Table, from now on, that the condition holds for.
func (s *Store) Wait(ctx context.Context, condition func(*Table) bool) (*Table, error) {
	for {
		t := s.Table()
		if condition(t) {
			return t, nil
		}
		select {
		case <-t.Superseded():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// change applies waypoint resources to a copy of the current Table.
func (s *Store) change(t *Table, u xds.Update) (rejected []xds.Rejection) {
	t.routes, t.policies = maps.Clone(t.routes), maps.Clone(t.policies)
	t.traffic, t.authentications = maps.Clone(t.traffic), maps.Clone(t.authentications)
	touched := map[mesh.ServiceKey]bool{}
	for _, name := range u.Removed {
		t.remove(name, touched)
	}
	for _, r := range u.Upserts {
		if err := t.put(r, touched); err != nil {
			rejected = append(rejected, xds.Rejection{Name: r.Name, Reason: err})
		}
	}
	if len(touched) > 0 {
		t.attached = maps.Clone(t.attached)
		t.attach(touched)
	}
	t.guards, t.tokens = sharePolicies(t.policies, s.self), shareTokens(t.authentications, s.self)
	return rejected
}

// put takes one resource. A route that is understood but cannot be used, as by
// an expression that does not compile, is taken and matches nothing.
func (t *Table) put(r xds.Resource, touched map[mesh.ServiceKey]bool) error {
	w, err := wire.UnmarshalWaypoint(r.Name, r.Body)
	switch {
	case w.Policy != nil:
		t.policies[w.Policy.Key] = guard{w.Policy, err}
	case err != nil:
	case w.Route != nil:
		touch(touched, t.routes[w.Route.Key])
		touch(touched, w.Route)
		t.routes[w.Route.Key] = w.Route
		err = usable(w.Route)
	case w.Traffic != nil:
		t.traffic[w.Traffic.Service] = w.Traffic
	case w.Authentication != nil:
		t.authentications[w.Authentication.Key] = keepKeys(t.authentications[w.Authentication.Key], w.Authentication)
	}
	return err
}

func usable(r *mesh.Route) error {
	if len(r.Parents) == 0 {
		return nil
	}
	_, err := match.Compile(r.Parents[0].Service, r.Parents[0].Port, []*mesh.Route{r})
	return err
}

func (t *Table) remove(name string, touched map[mesh.ServiceKey]bool) {
	kind, key, _ := strings.Cut(name, "/")
	route, _ := mesh.ParseRouteKey(key)
	policy, _ := mesh.ParsePolicyKey(key)
	service, _ := mesh.ParseServiceKey(key)
	switch kind + "/" + key {
	case wire.RouteName(route):
		touch(touched, t.routes[route])
		delete(t.routes, route)
	case wire.PolicyName(policy):
		delete(t.policies, policy)
	case wire.TrafficName(service):
		delete(t.traffic, service)
	case wire.AuthenticationName(policy):
		delete(t.authentications, policy)
	}
}

// touch notes the services that a route is attached to.
func touch(touched map[mesh.ServiceKey]bool, r *mesh.Route) {
	if r == nil {
		return
	}
	for _, p := range r.Parents {
		touched[p.Service] = true
	}
}

// attach makes the touched services' routes anew, and compiles those of the
// ports that are known, so that no request waits for it.
func (t *Table) attach(touched map[mesh.ServiceKey]bool) {
	lists := map[mesh.ServiceKey][]*mesh.Route{}
	for _, r := range t.routes {
		for _, p := range r.Parents {
			l := lists[p.Service]
			if once := len(l) == 0 || l[len(l)-1] != r; once && touched[p.Service] {
				lists[p.Service] = append(l, r)
			}
		}
	}
	for k := range touched {
		if len(lists[k]) == 0 {
			delete(t.attached, k)
			continue
		}
		a := &attached{routes: lists[k], byPort: map[uint16]*match.Routes{}, service: k}
		t.attached[k] = a
		if s := t.view.Service(k); s != nil {
			for _, p := range s.Ports {
				a.at(p.Service)
			}
		}
	}
}

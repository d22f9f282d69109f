package table

import (
	"sync"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// Table is one state of the configuration. It never changes; a nil Table is
// not valid.
type Table struct {
	view       *view.View
	generation uint64
	superseded chan struct{}

	routes          map[mesh.RouteKey]*mesh.Route
	policies        map[mesh.PolicyKey]guard
	traffic         map[mesh.ServiceKey]*mesh.Traffic
	authentications map[mesh.PolicyKey]*mesh.Authentication

	// What follows is made of the above for quick questions.
	attached map[mesh.ServiceKey]*attached
	guards   guards
	tokens   tokens
}

// attached are the routes of one service. Tables share it until one of the
// routes changes.
type attached struct {
	routes  []*mesh.Route
	mu      sync.Mutex
	byPort  map[uint16]*match.Routes
	service mesh.ServiceKey
}

// at compiles the routes of a port when it is asked for the first time. What
// cannot be compiled matches nothing; its sender was told when it came.
func (a *attached) at(port uint16) *match.Routes {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.byPort[port]
	if !ok {
		r, _ = match.Compile(a.service, port, a.routes)
		a.byPort[port] = r
	}
	return r
}

// View is the mesh as this Table knows it.
func (t *Table) View() *view.View { return t.view }

// Generation is the control plane's count of its configurations that this
// Table is at least as new as; 0 if none was heard of.
func (t *Table) Generation() uint64 { return t.generation }

// Superseded is closed when the Store has a newer Table.
func (t *Table) Superseded() <-chan struct{} { return t.superseded }

// Routes are those attached to a service that speak for one of its ports, or
// nil without any. The port is one that the service declares.
func (t *Table) Routes(k mesh.ServiceKey, port uint16) *match.Routes {
	a := t.attached[k]
	if a == nil {
		return nil
	}
	return a.at(port)
}

// Route finds a route by key, or nil.
func (t *Table) Route(k mesh.RouteKey) *mesh.Route { return t.routes[k] }

// Traffic is how to treat a service's endpoints; nil is by the defaults.
func (t *Table) Traffic(k mesh.ServiceKey) *mesh.Traffic { return t.traffic[k] }

// Policies are those that guard a service here: its own, this waypoint's and
// every waypoint's. The zero key stands for what is not sent to a service.
func (t *Table) Policies(k mesh.ServiceKey) policy.Set {
	if own, ok := t.guards.services[k]; ok {
		return own
	}
	return t.guards.everything
}

// Authentications are those that verify tokens of a service's requests, sorted
// by key. The caller does not change the slice.
func (t *Table) Authentications(k mesh.ServiceKey) []*mesh.Authentication {
	if own, ok := t.tokens.services[k]; ok {
		return own
	}
	return t.tokens.everything
}

package match

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Routes are the routes of one service port, ready to be asked. They never
// change. Nil means that there are none.
type Routes struct {
	service  mesh.ServiceKey
	port     uint16
	producer *group
	// consumers are by the namespace whose clients they speak for.
	consumers map[string]*group
}

// group is the routes that are merged with one another: those of one namespace.
type group struct {
	namespace string
	// kind is the strongest kind present; routes of other kinds have lost.
	kind mesh.RouteKind
	lost []*mesh.Route
	// unusable are routes that could not be compiled: no request matches them.
	unusable []*mesh.Route
	// ordered are the candidates by precedence, for explanations.
	ordered []*candidate
	requests
	connections
}

// Compile reads the routes that are attached to a service at a port. A route
// that cannot be read is in the error and matches nothing; the others work, and
// what only it could match is not found rather than passed by.
func Compile(service mesh.ServiceKey, port uint16, routes []*mesh.Route) (*Routes, error) {
	byNamespace := map[string][]*mesh.Route{}
	for _, r := range routes {
		if attached(r, service, port) {
			byNamespace[r.Key.Namespace] = append(byNamespace[r.Key.Namespace], r)
		}
	}
	if len(byNamespace) == 0 {
		return nil, nil
	}
	out := &Routes{service: service, port: port, consumers: map[string]*group{}}
	var errs []error
	for ns, list := range byNamespace {
		g, err := newGroup(ns, list)
		if errs = append(errs, err); ns == service.Namespace {
			out.producer = g
		} else {
			out.consumers[ns] = g
		}
	}
	return out, errors.Join(errs...)
}

func attached(r *mesh.Route, service mesh.ServiceKey, port uint16) bool {
	return slices.ContainsFunc(r.Parents, func(p mesh.RouteParent) bool {
		return p.Service == service && (p.Port == 0 || p.Port == port)
	})
}

// newGroup keeps the routes of the strongest kind. The control plane does so
// too, and tells the author; but a group of another namespace never silences
// the producer's, whatever its kind.
func newGroup(namespace string, routes []*mesh.Route) (*group, error) {
	routes = slices.Clone(routes)
	slices.SortStableFunc(routes, func(a, b *mesh.Route) int {
		return cmp.Or(cmp.Compare(a.Key.Kind, b.Key.Kind), cmp.Compare(a.Created, b.Created), cmp.Compare(a.Key.Name, b.Key.Name))
	})
	g := &group{namespace: namespace, kind: routes[0].Key.Kind}
	var errs []error
	for age, r := range routes {
		if r.Key.Kind != g.kind {
			g.lost = append(g.lost, r)
			continue
		}
		candidates, err := candidatesOf(r, age)
		if err != nil {
			g.unusable = append(g.unusable, r)
			errs = append(errs, fmt.Errorf("route %s: %w", r.Key, err))
			continue
		}
		g.ordered = append(g.ordered, candidates...)
	}
	slices.SortStableFunc(g.ordered, (*candidate).compare)
	for i, c := range g.ordered {
		c.order = i
	}
	if g.kind <= mesh.RouteHTTP {
		g.requests.index(g.ordered)
	} else {
		g.connections.index(g.ordered)
	}
	return g, errors.Join(errs...)
}

// group is the one that speaks for a client: its own namespace's, which wins
// whole over the producer's (GEP-1294). Nil if none does.
func (r *Routes) group(client spiffe.ID) *group {
	if r == nil {
		return nil
	}
	if g := r.consumers[client.Namespace]; g != nil && !client.IsZero() {
		return g
	}
	return r.producer
}

// Protocol is what routes say about a port's connections.
type Protocol uint8

// The protocols. The zero value says nothing.
const (
	ProtocolUnknown Protocol = iota
	ProtocolHTTP
	ProtocolGRPC
	ProtocolTLS
	ProtocolTCP
)

// Protocol is what the routes that speak for a client are about.
func (r *Routes) Protocol(client spiffe.ID) Protocol {
	g := r.group(client)
	if g == nil {
		return ProtocolUnknown
	}
	return [...]Protocol{ProtocolGRPC, ProtocolHTTP, ProtocolTLS, ProtocolTCP}[g.kind&3]
}

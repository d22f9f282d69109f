package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// A waypoint resource (xds.TypeWaypoint) is ours alone, so its body is the
// JSON of the mesh value: strict when it is read, so that a field of a later
// version is refused and not lost. The first word of its name is its kind.
const (
	kindRoute          = "route/"
	kindPolicy         = "policy/"
	kindTraffic        = "traffic/"
	kindAuthentication = "authentication/"
)

// Waypoint is one waypoint resource, read: exactly one field is set.
type Waypoint struct {
	Route          *mesh.Route
	Policy         *mesh.Policy
	Traffic        *mesh.Traffic
	Authentication *mesh.Authentication
}

// GuardsWaypoint reports whether the waypoint resource of that name protects
// what others make reachable.
func GuardsWaypoint(name string) bool {
	return strings.HasPrefix(name, kindPolicy) || strings.HasPrefix(name, kindAuthentication)
}

// RouteName, PolicyName, TrafficName and AuthenticationName name the waypoint
// resources of what the keys stand for.
func RouteName(k mesh.RouteKey) string           { return kindRoute + k.String() }
func PolicyName(k mesh.PolicyKey) string         { return kindPolicy + k.String() }
func TrafficName(k mesh.ServiceKey) string       { return kindTraffic + k.String() }
func AuthenticationName(k mesh.PolicyKey) string { return kindAuthentication + k.String() }

// MarshalRoute writes the waypoint resource of a route.
func MarshalRoute(r *mesh.Route) []byte { return marshalText(r) }

// MarshalTargetPolicy writes the waypoint resource of a policy with targets.
func MarshalTargetPolicy(p *mesh.Policy) []byte { return marshalText(p) }

// MarshalTraffic writes the waypoint resource of a service's settings.
func MarshalTraffic(t *mesh.Traffic) []byte { return marshalText(t) }

// MarshalAuthentication writes the waypoint resource of an authentication.
func MarshalAuthentication(a *mesh.Authentication) []byte { return marshalText(a) }

// marshalText writes deterministically: encoding/json sorts the keys of maps.
func marshalText(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		// Every field of these values has a text form.
		panic(fmt.Sprintf("wire: marshalling %T: %v", v, err))
	}
	return b
}

// UnmarshalWaypoint reads the waypoint resource of that name. With an error
// about a policy, the policy is set to one that guards everything by that key:
// what it was to guard cannot be read, so the reader closes.
func UnmarshalWaypoint(name string, body []byte) (w Waypoint, err error) {
	switch {
	case strings.HasPrefix(name, kindRoute):
		w.Route, err = readText(body, name, func(r *mesh.Route) string { return RouteName(r.Key) })
	case strings.HasPrefix(name, kindTraffic):
		w.Traffic, err = readText(body, name, func(t *mesh.Traffic) string { return TrafficName(t.Service) })
	case strings.HasPrefix(name, kindAuthentication):
		w.Authentication, err = readText(body, name, func(a *mesh.Authentication) string { return AuthenticationName(a.Key) })
	case strings.HasPrefix(name, kindPolicy):
		w.Policy, err = readText(body, name, func(p *mesh.Policy) string { return PolicyName(p.Key) })
		if err == nil {
			err = checkTargetPolicy(w.Policy)
		}
		if err != nil {
			w.Policy = &mesh.Policy{Scope: mesh.ScopeTargets, Targets: []mesh.Target{{Class: true}}}
			w.Policy.Key, _ = mesh.ParsePolicyKey(strings.TrimPrefix(name, kindPolicy))
		}
	default:
		err = errors.New("a kind of resource that is not known here")
	}
	return w, err
}

func readText[T any](body []byte, name string, named func(*T) string) (*T, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	v := new(T)
	if err := d.Decode(v); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", name, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("decoding %s: something follows it", name)
	}
	if n := named(v); n != name {
		return nil, fmt.Errorf("its body is of %s", n)
	}
	return v, nil
}

// checkTargetPolicy refuses numbers that are not known here.
func checkTargetPolicy(p *mesh.Policy) error {
	switch {
	case p.Scope != mesh.ScopeTargets:
		return fmt.Errorf("policy %s has scope %d", p.Key, p.Scope)
	case p.Action > mesh.ActionCustom:
		return fmt.Errorf("policy %s has action %d", p.Key, p.Action)
	}
	return nil
}

// Package translate turns what users wrote and what Kubernetes observed into
// the mesh's own model: pods and endpoint slices into workloads, services into
// services, authorization and peer authentication into L4 policies, routes of
// the Gateway API into routes of waypoints, destination rules and retry budgets
// into what waypoints do to the endpoints of services, policies with targets
// and request authentication into what waypoints enforce.
//
// It owns the meaning of the user's API, and closes where something cannot be
// done: a DENY is widened, an ALLOW rule is left out, a rule of a route answers
// 500, and a condition says so. It refuses to fail: a user's mistake is a Condition. It is
// pure; Translate is the whole of it, and a Translator gives the same result
// while redoing only what a change touches. Called by istiod-lite's root with
// sets from istiod-lite/kube or from files.
package translate

import (
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Condition types and reasons; the names are Istio's.
const (
	// TypeZtunnelAccepted is on AuthorizationPolicies that ztunnel enforces,
	// and on PeerAuthentications of which something is not.
	TypeZtunnelAccepted = "ZtunnelAccepted"
	// TypeWaypointBound is on Services that name a waypoint.
	TypeWaypointBound = "istio.io/WaypointBound"
	// TypeEntryAccepted is on ServiceEntries. Upstream has none for it.
	TypeEntryAccepted = "ambit.io/Accepted"

	// TypeVisibilityApplied is on ServiceEntries that not everybody knows.
	TypeVisibilityApplied = "istio.io/VisibilityApplied"

	// TypeRuleAccepted is on DestinationRules: upstream has no type for them.
	TypeRuleAccepted = "ambit.io/Accepted"

	// TypeWaypointAccepted is on what waypoints enforce: AuthorizationPolicies
	// with targets, and RequestAuthentications.
	TypeWaypointAccepted = "WaypointAccepted"

	ReasonAccepted           = "Accepted"
	ReasonAncestorNotBound   = "AncestorNotBound"
	ReasonInvalid            = "Invalid"
	ReasonPartiallyInvalid   = "PartiallyInvalid"
	ReasonTargetNotFound     = "TargetNotFound"
	ReasonUnsupportedValue   = "UnsupportedValue"
	ReasonWaypointAccepted   = "WaypointAccepted"
	ReasonWaypointIsNotReady = "WaypointIsNotReady"

	// ReasonNamespaces, ReasonNone and ReasonNotVisible are not Istio's.
	ReasonNamespace  = "Namespace"
	ReasonNamespaces = "Namespaces"
	ReasonNone       = "None"
	ReasonNotVisible = "NotVisible"

	ReasonAttachmentDenied       = "AttachmentDenied"
	ReasonUnsupportedTrafficType = "UnsupportedTrafficType"
)

// Condition types and reasons of a route at one of its parents; the names are
// the Gateway API's, except the last of each.
const (
	TypeAccepted         = "Accepted"
	TypeResolvedRefs     = "ResolvedRefs"
	TypePartiallyInvalid = "PartiallyInvalid"
	// TypeResolvedWaypoints tells whether a waypoint serves the route there.
	// Istio has it without the domain, and true even where nothing serves.
	TypeResolvedWaypoints = "istio.io/ResolvedWaypoints"

	ReasonNoMatchingParent      = "NoMatchingParent"
	ReasonNotAllowedByListeners = "NotAllowedByListeners"
	ReasonConflicted            = "Conflicted"
	ReasonIncompatibleFilters   = "IncompatibleFilters"
	ReasonResolvedRefs          = "ResolvedRefs"
	ReasonBackendNotFound       = "BackendNotFound"
	ReasonInvalidKind           = "InvalidKind"
	ReasonUnsupportedProtocol   = "UnsupportedProtocol"
	ReasonNoWaypoint            = "NoWaypoint"
)

// Condition types and reasons of Gateways and their listeners; the names are the
// Gateway API's.
const (
	TypeProgrammed = "Programmed"
	TypeConflicted = "Conflicted"

	ReasonAddressNotAssigned = "AddressNotAssigned"
	ReasonListenersNotValid  = "ListenersNotValid"
	ReasonNoConflicts        = "NoConflicts"
	ReasonNoResources        = "NoResources"
	ReasonPortUnavailable    = "PortUnavailable"
)

// Condition is what the user is told in the status of an object.
type Condition struct {
	Object objects.Ref
	// Parent is whom a condition of a route or of a policy's target is about,
	// as the user wrote the reference, or a Gateway's listener; zero for one of
	// the object itself.
	Parent Parent
	// Generation is the object's that was looked at.
	Generation int64
	Type       string
	Status     bool
	Reason     string
	// Message is sentences for the user.
	Message string
}

// Trouble reports whether a condition tells of something that is not as its
// author wants it.
func (c Condition) Trouble() bool {
	return c.Status == (c.Type == TypePartiallyInvalid || c.Type == TypeConflicted)
}

// Parent is a reference in a route's parentRefs or a policy's targetRefs, as it
// was written: what was left out is empty.
type Parent struct {
	Group, Kind, Namespace, Name, SectionName string
	Port                                      int32
}

// Translate makes the model of a set, with the conditions sorted by object.
func Translate(set objects.Set) (mesh.Model, []Condition) {
	return New().Update(set, nil)
}

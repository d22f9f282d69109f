package translate

import (
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// verdict is what becomes of a route at one parent.
type verdict struct {
	reason, message string
	attached        []mesh.RouteParent
}

// judge decides on one parent: rules first, then ports that routes of stronger
// kinds have taken.
func (t *Translator) judge(key mesh.RouteKey, d *drawn, a attachment) verdict {
	if a.reason != "" {
		return verdict{reason: a.reason, message: a.message}
	}
	won, lost := t.places(key, d, a)
	switch {
	case !d.whole:
		return verdict{reason: d.refusal(), message: d.dropped("No rule works."), attached: won}
	case len(won) == 0:
		return verdict{reason: ReasonConflicted, message: strings.Join(lost, " ")}
	}
	message := fmt.Sprintf("The route is attached to Service %s.", a.object)
	for _, note := range append(lost, a.unsuited, d.notes) {
		if note != "" {
			message += " " + note
		}
	}
	return verdict{reason: ReasonAccepted, message: message, attached: won}
}

// places are the ports where a route is attached, and what is told of the
// others. A route without rules is nowhere.
func (t *Translator) places(key mesh.RouteKey, d *drawn, a attachment) (won []mesh.RouteParent, lost []string) {
	if len(d.rules) == 0 {
		return nil, nil
	}
	service := serviceKey(t.seen.Mesh, a.object)
	for _, p := range a.ports {
		if w := t.winners[slot{a.object, p, key.Namespace}]; w.Kind != key.Kind {
			lost = append(lost, fmt.Sprintf("Port %d has %s %s/%s, which goes before any %s.", p, w.Kind, w.Namespace, w.Name, key.Kind))
		} else {
			won = append(won, mesh.RouteParent{Service: service, Port: p})
		}
	}
	if a.all && len(lost) == 0 {
		won = []mesh.RouteParent{{Service: service}}
	}
	return won, lost
}

// refusal is why a route of which no rule works is refused.
func (d *drawn) refusal() string {
	if len(d.broken) == 0 {
		return ReasonUnsupportedValue // it has no rules
	}
	return d.broken[0].reason
}

// dropped tells of the rules that do not work.
func (d *drawn) dropped(begin string) string {
	told := []string{begin}
	for _, b := range d.broken {
		effect := "What it matches goes to the other rules."
		if b.answers {
			effect = "What it matches is " + d.refused + "."
		}
		told = append(told, fmt.Sprintf("Rule %d: %s. %s", b.rule, b.text, effect))
	}
	return sentences(told)
}

// maxSentences and maxSentence keep a message readable, and well below what the
// API server takes.
const (
	maxSentences = 12
	maxSentence  = 1000
)

func sentences(told []string) string {
	if n := len(told) - maxSentences; n > 0 {
		told = append(told[:maxSentences:maxSentences], fmt.Sprintf("There are %d more like these.", n))
	}
	for i, s := range told {
		if len(s) > maxSentence {
			told[i] = strings.ToValidUTF8(s[:maxSentence], "") + "…"
		}
	}
	return strings.Join(told, " ")
}

// finish publishes a route and tells its owner, once it is known who won the
// ports.
func (t *Translator) finish(key mesh.RouteKey) {
	d := t.drawings[key]
	if d == nil {
		t.routes.del(key)
		t.tell(routeRef(key))
		return
	}
	src := t.routeSource(key)
	out := &mesh.Route{Key: key, Created: src.meta.CreationTimestamp.Unix(), Generation: src.meta.Generation, Rules: d.rules}
	var told []Condition
	for _, a := range d.attachments {
		s := t.serving(a.object)
		if a.kind == parentService && s.foreign {
			continue // its routes are not ours to speak of
		}
		v := t.judge(key, d, a)
		for _, p := range v.attached {
			out.Parents = appendParent(out.Parents, p)
		}
		of := conditionsOf{routeRef(key), a.parent, src.meta.Generation}
		told = append(told, of.tell(TypeAccepted, v.reason == ReasonAccepted, v.reason, v.message), of.resolved(d))
		if v.reason == ReasonAccepted && len(d.broken) > 0 {
			told = append(told, of.tell(TypePartiallyInvalid, true, d.broken[0].reason, d.dropped("Dropped Rule.")))
		}
		if v.reason == ReasonAccepted {
			told = append(told, of.tell(TypeResolvedWaypoints, s.reason == ReasonWaypointAccepted, s.reason, s.message))
		}
	}
	if len(out.Parents) == 0 {
		t.routes.del(key)
	} else {
		t.routes.put(key, out)
	}
	t.tell(routeRef(key), told...)
}

// appendParent adds a parent that is not there yet: two references may come
// to one.
func appendParent(all []mesh.RouteParent, p mesh.RouteParent) []mesh.RouteParent {
	for _, o := range all {
		if o.Service == p.Service && (o.Port == 0 || o.Port == p.Port) {
			return all
		}
	}
	return append(all, p)
}

// conditionsOf makes the conditions of one route at one parent.
type conditionsOf struct {
	object     objects.Ref
	parent     Parent
	generation int64
}

func (c conditionsOf) tell(typ string, status bool, reason, message string) Condition {
	return Condition{Object: c.object, Parent: c.parent, Generation: c.generation, Type: typ, Status: status, Reason: reason, Message: message}
}

func (c conditionsOf) resolved(d *drawn) Condition {
	if len(d.unresolved) == 0 {
		return c.tell(TypeResolvedRefs, true, ReasonResolvedRefs, "Every backend is there.")
	}
	var told []string
	for _, u := range d.unresolved {
		effect := "its share is " + d.refused
		if u.mirror {
			effect = "nothing is mirrored to it"
		}
		told = append(told, fmt.Sprintf("Rule %d: %s; %s.", u.rule, u.text, effect))
	}
	return c.tell(TypeResolvedRefs, false, d.unresolved[0].reason, sentences(told))
}

// serving is who serves a service's routes.
type serving struct {
	reason, message string
	// foreign is set if the waypoint that the service names is of somebody
	// else's class.
	foreign bool
}

// serving finds it out. A route that nothing serves says so.
func (t *Translator) serving(k objects.Key) serving {
	b := t.Waypoint(k)
	foreign := t.waypoints.state[b.Gateway].class != ""
	switch {
	case b.Ready:
		return serving{ReasonWaypointAccepted, "Waypoint " + b.Gateway.String() + " serves this route.", foreign}
	case b.Reason != "":
		return serving{b.Reason, "Nothing serves this route: " + b.Message, foreign}
	}
	return serving{ReasonNoWaypoint, "Nothing serves this route: Service " + k.String() + " names no waypoint, nor does its namespace.", foreign}
}

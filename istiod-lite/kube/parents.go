package kube

import (
	"reflect"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// routeController is whose entries in a route's status are ours; the name is
// Istio's, for mesh parents too.
const routeController = "istio.io/gateway-controller"

// routeTypes are the types of conditions in our entries that only we write.
var routeTypes = []string{
	translate.TypeAccepted, translate.TypeResolvedRefs, translate.TypePartiallyInvalid, translate.TypeResolvedWaypoints,
}

// list is a list in a status that has an entry for each parent.
type list struct{ field, ref string }

// The lists: of routes, and of policies about what they target (GEP-713).
var (
	parents   = list{"parents", "parentRef"}
	ancestors = list{"ancestors", "ancestorRef"}
)

// parentsOf is what the list of a route or policy should be, and whether that
// differs from what it is. There is one entry for each parent as its author
// wrote it; those of other controllers stay as and where they are, as do
// conditions in ours of types that are not. Entries of ours that nobody wants
// go, unless they are about a parent of a kind that is never ours: then
// another installation of the same name wrote them.
func parentsOf(l list, have *unstructured.Unstructured, want []translate.Condition, now time.Time) (next []any, changed bool) {
	old, _, _ := unstructured.NestedSlice(have.Object, "status", l.field)
	order, byParent := groupByParent(want)
	next = []any{} // never null: the list is required
	done := map[translate.Parent]bool{}
	for _, e := range old {
		entry, _ := e.(map[string]any)
		if entry["controllerName"] != routeController {
			next = append(next, e)
			continue
		}
		p := parentIn(l, entry)
		switch {
		case byParent[p] != nil && !done[p]:
			done[p] = true
			next = append(next, parentEntry(l, p, entry, byParent[p], now))
		case byParent[p] == nil && p.Kind == "Gateway" && references(have, p):
			next = append(next, e)
		}
	}
	for _, p := range order {
		if !done[p] {
			next = append(next, parentEntry(l, p, nil, byParent[p], now))
		}
	}
	return next, !reflect.DeepEqual(old, next) && len(old)+len(next) > 0
}

// groupByParent keeps the order of parents.
func groupByParent(want []translate.Condition) (order []translate.Parent, by map[translate.Parent][]translate.Condition) {
	by = map[translate.Parent][]translate.Condition{}
	for _, w := range want {
		if by[w.Parent] == nil {
			order = append(order, w.Parent)
		}
		by[w.Parent] = append(by[w.Parent], w)
	}
	return order, by
}

// parentEntry is one entry: what is wanted, over the one that is there.
func parentEntry(l list, p translate.Parent, old map[string]any, want []translate.Condition, now time.Time) map[string]any {
	var next []any
	done := map[string]bool{}
	was, _, _ := unstructured.NestedSlice(old, "conditions")
	for _, e := range was {
		c, _ := e.(map[string]any)
		typ, _ := c["type"].(string)
		i := slices.IndexFunc(want, func(w translate.Condition) bool { return w.Type == typ })
		switch {
		case i >= 0 && generation(c["observedGeneration"]) > want[i].Generation:
			next = append(next, e) // said of a newer object than was looked at
		case i >= 0:
			now, _ := condition(want[i], c, now)
			next = append(next, now)
		case !slices.Contains(routeTypes, typ):
			next = append(next, e)
		}
		done[typ] = true
	}
	for _, w := range want {
		if !done[w.Type] {
			c, _ := condition(w, nil, now)
			next = append(next, c)
		}
	}
	return map[string]any{l.ref: reference(p), "controllerName": routeController, "conditions": next}
}

// reference is a parent's wire form. The group and the kind are always
// written: left out, they would mean a Gateway.
func reference(p translate.Parent) map[string]any {
	out := map[string]any{"group": p.Group, "kind": p.Kind, "name": p.Name}
	if p.Namespace != "" {
		out["namespace"] = p.Namespace
	}
	if p.SectionName != "" {
		out["sectionName"] = p.SectionName
	}
	if p.Port != 0 {
		out["port"] = int64(p.Port)
	}
	return out
}

// parentIn reads the reference of an entry.
func parentIn(l list, entry map[string]any) translate.Parent {
	ref, _ := entry[l.ref].(map[string]any)
	return parentFrom(ref)
}

func parentFrom(ref map[string]any) translate.Parent {
	text := func(field, otherwise string) string {
		if s, ok := ref[field].(string); ok {
			return s
		}
		return otherwise
	}
	return translate.Parent{
		Group: text("group", gateway.GroupName), Kind: text("kind", "Gateway"), Namespace: text("namespace", ""),
		Name: text("name", ""), SectionName: text("sectionName", ""), Port: int32(generation(ref["port"])),
	}
}

// references reports whether a route still names a parent.
func references(have *unstructured.Unstructured, p translate.Parent) bool {
	refs, _, _ := unstructured.NestedSlice(have.Object, "spec", "parentRefs")
	return slices.ContainsFunc(refs, func(e any) bool {
		ref, _ := e.(map[string]any)
		return parentFrom(ref) == p
	})
}

// onlyOurs reports whether no other controller has an entry.
func onlyOurs(l list, have *unstructured.Unstructured) bool {
	all, _, _ := unstructured.NestedSlice(have.Object, "status", l.field)
	return !slices.ContainsFunc(all, func(e any) bool {
		entry, _ := e.(map[string]any)
		return entry["controllerName"] != routeController
	})
}

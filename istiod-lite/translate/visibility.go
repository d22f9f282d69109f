package translate

import (
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// audience is who knows the hosts of an entry: everybody, or the clients of some
// namespaces.
type audience struct {
	everybody  bool
	namespaces []string // sorted
	// says is what restricts it.
	says string
	// barred says that nobody is left by the mesh's own bound.
	barred bool
	// unread are values of exportTo that mean nothing.
	unread []string
}

// What may restrict an audience.
const (
	saysExportTo = "exportTo"
	saysDefault  = "the mesh's defaultServiceExportTo"
	saysBound    = "the mesh's serviceEntryVisibility"
)

// audienceOf reads exportTo, or what the mesh has for entries without, within the
// mesh's bound for the entry's namespace.
func audienceOf(m objects.MeshConfig, se *networking.ServiceEntry, namespace map[string]string) audience {
	a := audience{says: saysExportTo}
	to := se.Spec.GetExportTo()
	if len(to) == 0 {
		to, a.says = m.ServiceExportTo, saysDefault
	}
	a.everybody = len(to) == 0
	for _, one := range to {
		switch {
		case one == "*":
			a.everybody = true
		case one == ".":
			a.namespaces = append(a.namespaces, se.Namespace)
		case one == "~":
		case len(validation.IsDNS1123Label(one)) > 0:
			a.unread = append(a.unread, one)
		default:
			a.namespaces = append(a.namespaces, one)
		}
	}
	slices.Sort(a.namespaces)
	a.namespaces = slices.Compact(a.namespaces)
	if a.everybody {
		a.namespaces = nil
	}
	return a.within(m.EntryVisibility.Of(namespace), se.Namespace)
}

func (a audience) within(bound objects.Visibility, home string) audience {
	switch bound {
	case objects.VisibleEverywhere:
	case objects.VisibleInNamespace:
		switch {
		case a.everybody:
			a.everybody, a.namespaces, a.says = false, []string{home}, saysBound
		case !slices.Contains(a.namespaces, home):
			a.barred = len(a.namespaces) > 0
			a.namespaces = nil
		case len(a.namespaces) > 1:
			a.namespaces, a.says = []string{home}, saysBound
		}
	case objects.VisibleNowhere:
		a.everybody, a.namespaces, a.barred = false, nil, true
	}
	if a.barred {
		a.says = saysBound
	}
	return a
}

// nobody reports whether no client knows the entry.
func (a audience) nobody() bool { return !a.everybody && len(a.namespaces) == 0 }

// only reports whether just one namespace knows the entry.
func (a audience) only(namespace string) bool {
	return !a.everybody && len(a.namespaces) == 1 && a.namespaces[0] == namespace
}

// words say whom an entry is known to; empty if to everybody.
func (a audience) words(home string) (reason, message string) {
	switch {
	case a.everybody:
		return "", ""
	case a.nobody():
		return ReasonNone, "No client knows the entry, as " + a.says + " says."
	case a.only(home):
		return ReasonNamespace, "Only clients of its own namespace know the entry, as " + a.says + " says."
	}
	return ReasonNamespaces, "Only clients of these namespaces know the entry, as " + a.says + " says: " + strings.Join(a.namespaces, ", ") + "."
}

// condition tells it to the entry's owner.
func (a audience) condition(ref objects.Ref, generation int64) []Condition {
	reason, message := a.words(ref.Key.Namespace)
	if reason == "" {
		return nil
	}
	return []Condition{{Object: ref, Generation: generation, Type: TypeVisibilityApplied, Status: true, Reason: reason, Message: message}}
}

package objects

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Visibility is how widely ServiceEntries may be known, as whoever runs the mesh
// says.
type Visibility uint8

const (
	VisibleEverywhere Visibility = iota
	VisibleInNamespace
	VisibleNowhere
)

// EntryVisibility bounds what ServiceEntries ask for. The zero value is no bound.
type EntryVisibility struct {
	// Default is for entries that no policy is for.
	Default Visibility
	// Policies are looked at in order; the first one counts.
	Policies []VisibilityPolicy
}

// VisibilityPolicy is for the entries of namespaces whose labels all of its
// selectors match.
type VisibilityPolicy struct {
	Visibility Visibility
	Namespaces []*metav1.LabelSelector
}

// Of is the bound of the entries of a namespace with these labels.
func (e EntryVisibility) Of(namespace map[string]string) Visibility {
	for _, p := range e.Policies {
		if p.matches(namespace) {
			return p.Visibility
		}
	}
	return e.Default
}

func (p VisibilityPolicy) matches(namespace map[string]string) bool {
	for _, s := range p.Namespaces {
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil || !selector.Matches(labels.Set(namespace)) {
			return false
		}
	}
	return true
}

// entryVisibility is serviceEntryVisibility of the settings.
type entryVisibility struct {
	DefaultVisibility string `json:"defaultVisibility"`
	Policies          []struct {
		Visibility    string `json:"visibility"`
		MatchingRules []struct {
			NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector"`
		} `json:"matchingRules"`
	} `json:"policies"`
}

// read refuses what it does not know: to pass it over could show what is to be
// hidden.
func (e *entryVisibility) read() (out EntryVisibility, err error) {
	if out.Default, err = visibilityNamed(e.DefaultVisibility); err != nil {
		return out, fmt.Errorf("serviceEntryVisibility.defaultVisibility: %w", err)
	}
	for i, p := range e.Policies {
		at := fmt.Sprintf("serviceEntryVisibility.policies[%d]", i)
		next := VisibilityPolicy{}
		if next.Visibility, err = visibilityNamed(p.Visibility); err != nil {
			return out, fmt.Errorf("%s: %w", at, err)
		}
		if len(p.MatchingRules) == 0 {
			return out, fmt.Errorf("%s has no matchingRules: say what is for all entries by defaultVisibility", at)
		}
		for _, r := range p.MatchingRules {
			if r.NamespaceSelector == nil {
				return out, fmt.Errorf("%s: a rule has no namespaceSelector, and no other is known", at)
			}
			if _, err := metav1.LabelSelectorAsSelector(r.NamespaceSelector); err != nil {
				return out, fmt.Errorf("%s: %w", at, err)
			}
			next.Namespaces = append(next.Namespaces, r.NamespaceSelector)
		}
		out.Policies = append(out.Policies, next)
	}
	return out, nil
}

func visibilityNamed(name string) (Visibility, error) {
	switch name {
	case "", "VISIBILITY_UNSPECIFIED", "PUBLIC":
		return VisibleEverywhere, nil
	case "NAMESPACE":
		return VisibleInNamespace, nil
	case "NONE":
		return VisibleNowhere, nil
	}
	return VisibleNowhere, fmt.Errorf("visibility %q is none of PUBLIC, NAMESPACE and NONE", name)
}

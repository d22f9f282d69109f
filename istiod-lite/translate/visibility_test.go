package translate_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

func TestWhoKnowsAnEntry(t *testing.T) {
	const spec = "hosts: [api.example.com], addresses: [240.0.0.1], ports: [{number: 80, name: http}], resolution: DNS, exportTo: "
	home := objects.EntryVisibility{Default: objects.VisibleInNamespace}
	for _, tt := range []struct {
		sentence, to string
		byDefault    []string
		bound        objects.EntryVisibility
		see          string // of shop, bank, desk
		applied      string // reason and message of the condition; empty is none
		accepted     bool
	}{
		{"everybody, if it says nothing", "[]", nil, objects.EntryVisibility{}, "shop bank desk", "", true},
		{"everybody", "['*']", nil, objects.EntryVisibility{}, "shop bank desk", "", true},
		{"its namespace", "[.]", nil, objects.EntryVisibility{}, "shop", "Namespace Only clients of its own namespace know the entry, as exportTo says.", true},
		{"its namespace by name", "[shop]", nil, objects.EntryVisibility{}, "shop", "Namespace Only clients of its own", true},
		{"itself and another", "[., bank]", nil, objects.EntryVisibility{}, "shop bank", "Namespaces Only clients of these namespaces know the entry, as exportTo says: bank, shop.", true},
		{"another, and not its own", "[bank]", nil, objects.EntryVisibility{}, "bank", "Namespaces Only clients of these namespaces know the entry, as exportTo says: bank.", true},
		{"nobody", "['~']", nil, objects.EntryVisibility{}, "", "None No client knows the entry, as exportTo says.", true},
		{"nobody by a value that means nothing", "['a*']", nil, objects.EntryVisibility{}, "", "None ", false},
		{"a value that means nothing beside one that does", "[bank, 'a*']", nil, objects.EntryVisibility{}, "bank", "Namespaces ", false},
		{"the mesh's default where it says nothing", "[]", []string{"."}, objects.EntryVisibility{}, "shop", "Namespace Only clients of its own namespace know the entry, as the mesh's defaultServiceExportTo says.", true},
		{"itself against the mesh's default", "['*']", []string{"."}, objects.EntryVisibility{}, "shop bank desk", "", true},
		{"the mesh's bound", "['*']", nil, home, "shop", "Namespace Only clients of its own namespace know the entry, as the mesh's serviceEntryVisibility says.", true},
		{"the bound takes others away", "[., bank]", nil, home, "shop", "Namespace Only clients of its own namespace know the entry, as the mesh's serviceEntryVisibility says.", true},
		{"the bound adds nobody", "[bank]", nil, home, "", "None No client knows the entry, as the mesh's serviceEntryVisibility says.", false},
		{"nobody, by the bound", "['*']", nil, objects.EntryVisibility{Default: objects.VisibleNowhere}, "", "None No client knows the entry, as the mesh's serviceEntryVisibility says.", false},
	} {
		set := parse(t, entryYAML("a", older, spec+tt.to))
		set.Mesh.ServiceExportTo, set.Mesh.EntryVisibility = tt.byDefault, tt.bound
		m, conditions := translate.Translate(set)
		var see []string
		if s := m.Services[mesh.ServiceKey{Namespace: "shop", Hostname: "api.example.com"}]; s != nil {
			for _, ns := range []string{"shop", "bank", "desk"} {
				if s.VisibleTo(ns) {
					see = append(see, ns)
				}
			}
		}
		if got := strings.Join(see, " "); got != tt.see {
			t.Errorf("%s: known to %q, want %q", tt.sentence, got, tt.see)
		}
		applied := ""
		for _, c := range conditions {
			switch c.Type {
			case translate.TypeVisibilityApplied:
				applied = c.Reason + " " + c.Message
			case translate.TypeEntryAccepted:
				if c.Status != tt.accepted {
					t.Errorf("%s: accepted is %v: %s", tt.sentence, c.Status, c.Message)
				}
			}
		}
		if !strings.HasPrefix(applied, tt.applied) || tt.applied == "" && applied != "" {
			t.Errorf("%s: the condition is %q, want %q", tt.sentence, applied, tt.applied)
		}
	}
}

// TestTheBoundFollowsTheNamespacesLabels: an entry is known to others as soon as
// its namespace's label lets it.
func TestTheBoundFollowsTheNamespacesLabels(t *testing.T) {
	const settings = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: \"serviceEntryVisibility: {defaultVisibility: NONE, policies: [{visibility: PUBLIC, matchingRules: [{namespaceSelector: {matchLabels: {egress: 'yes'}}}]}]}\"}\n"
	entry := entryYAML("a", older, "hosts: [api.example.com], addresses: [240.0.0.1], ports: [{number: 80, name: http}], resolution: DNS")
	namespace := func(labels string) string {
		return "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {" + labels + "}}\n"
	}
	tr := translate.New()
	ref := objects.Ref{Kind: objects.KindNamespace, Key: objects.Key{Name: "shop"}}
	var got []bool
	for _, labels := range []string{"", "egress: 'yes'", ""} {
		m, _ := tr.Update(parse(t, settings+entry+namespace(labels)), []objects.Ref{ref, {Kind: objects.KindServiceEntry, Key: objects.Key{Namespace: "shop", Name: "a"}}})
		got = append(got, len(m.Services) == 1)
	}
	if !slices.Equal(got, []bool{false, true, false}) {
		t.Errorf("the entry is known: %v", got)
	}
}

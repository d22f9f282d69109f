package objects

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhoMaySeeEntriesIsRead(t *testing.T) {
	const text = `
defaultServiceExportTo: ["."]
serviceEntryVisibility:
  defaultVisibility: NAMESPACE
  policies:
  - visibility: NONE
    matchingRules: [{namespaceSelector: {matchLabels: {team: guests}}}, {namespaceSelector: {matchExpressions: [{key: trusted, operator: DoesNotExist}]}}]
  - visibility: PUBLIC
    matchingRules: [{namespaceSelector: {matchLabels: {egress: "true"}}}]
`
	m, err := ParseMesh(text, MeshConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"."}, m.ServiceExportTo); d != "" {
		t.Errorf("defaultServiceExportTo (-want +got):\n%s", d)
	}
	for _, tt := range []struct {
		sentence string
		labels   map[string]string
		want     Visibility
	}{
		{"the default", nil, VisibleInNamespace},
		{"a policy of which all rules match", map[string]string{"team": "guests"}, VisibleNowhere},
		{"the first policy that matches counts", map[string]string{"team": "guests", "egress": "true"}, VisibleNowhere},
		{"one rule that does not match is enough", map[string]string{"team": "guests", "trusted": "yes"}, VisibleInNamespace},
		{"a later policy", map[string]string{"egress": "true"}, VisibleEverywhere},
	} {
		if got := m.EntryVisibility.Of(tt.labels); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.sentence, got, tt.want)
		}
	}
	if got := (EntryVisibility{}).Of(nil); got != VisibleEverywhere {
		t.Errorf("without settings: %v, want everywhere", got)
	}
}

func TestAnUnreadableVisibilityIsRefused(t *testing.T) {
	for _, tt := range []struct{ sentence, text, want string }{
		{"an unknown default", "{defaultVisibility: HIDDEN}", `defaultVisibility: visibility "HIDDEN"`},
		{"an unknown visibility", "{policies: [{visibility: HIDDEN, matchingRules: [{namespaceSelector: {}}]}]}", `policies[0]: visibility "HIDDEN"`},
		{"a policy without rules", "{policies: [{visibility: NONE}]}", "policies[0] has no matchingRules"},
		{"a matcher of a later version", "{policies: [{visibility: NONE, matchingRules: [{hostSelector: {}}]}]}", "no namespaceSelector"},
		{"a selector that is none", "{policies: [{visibility: NONE, matchingRules: [{namespaceSelector: {matchExpressions: [{key: a, operator: Near}]}}]}]}", "policies[0]: "},
	} {
		before := MeshConfig{EntryVisibility: EntryVisibility{Default: VisibleNowhere}}
		got, err := ParseMesh("serviceEntryVisibility: "+tt.text, before)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.sentence, err, tt.want)
		}
		if got.EntryVisibility.Default != VisibleNowhere {
			t.Errorf("%s: the settings before do not hold any longer", tt.sentence)
		}
	}
}

package install

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// bundle makes definitions of one version, channel and owner: "ours v1.6.3
// standard httproutes gateways".
func bundle(words string) []bundled {
	f := strings.Fields(words)
	if len(f) == 0 {
		return nil
	}
	var all []bundled
	for _, kind := range f[3:] {
		all = append(all, bundled{name: kind + ".gateway.networking.k8s.io", version: f[1], channel: f[2], ours: f[0] == "ours"})
	}
	return all
}

func TestWhoseDefinitionsOfTheGatewayAPIAreApplied(t *testing.T) {
	for _, tt := range []struct {
		it        string
		wanted    string
		installed []string
		applied   string
		says      string
	}{
		{it: "an empty cluster gets all", applied: "httproutes gateways"},
		{it: "ours are applied again", installed: []string{"ours v1.6.3 standard httproutes gateways"}, applied: "httproutes gateways"},
		{it: "our older ones are brought up to date", installed: []string{"ours v1.5.1 standard httproutes"}, applied: "httproutes gateways"},
		{it: "our newer ones stay", installed: []string{"ours v1.7.0 standard httproutes gateways"}, says: "newer, v1.7.0 (standard)"},
		{it: "a candidate of a later release is newer", installed: []string{"ours v1.7.0-rc.1 standard httproutes"}, says: "newer, v1.7.0-rc.1"},
		{it: "the same ones of somebody else stay theirs, and what is missing is added", installed: []string{"theirs v1.6.3 standard httproutes"}, applied: "gateways"},
		{it: "newer ones of somebody else stay", installed: []string{"theirs v1.7.0 standard httproutes gateways"}, says: "somebody else's, v1.7.0 (standard)"},
		{it: "older ones of somebody else stay, and nothing newer comes beside them", installed: []string{"theirs v1.4.0 standard httproutes"}, says: "there will be no gateways"},
		{it: "the other channel of somebody else stays", installed: []string{"theirs v1.6.3 experimental httproutes gateways"}, says: "somebody else's, v1.6.3 (experimental)"},
		{it: "definitions without a version are somebody else's", installed: []string{"theirs unknown unknown httproutes"}, says: "somebody else's, unknown (unknown)"},
		{it: "one foreign definition decides for the bundle", installed: []string{"ours v1.6.3 standard httproutes", "theirs v1.7.0 standard udproutes"}, says: "somebody else's, v1.7.0 (standard)"},
		{it: "a wider channel is installed over ours when asked for", wanted: "- v1.6.3 experimental httproutes gateways", installed: []string{"ours v1.6.3 standard httproutes gateways"}, applied: "httproutes gateways"},
		{it: "a smaller one is not", installed: []string{"ours v1.6.3 experimental httproutes gateways"}, says: "the standard one has fewer fields"},
		{it: "nothing is wanted", wanted: "- v1.6.3 standard", installed: []string{"theirs v1.7.0 standard httproutes"}},
	} {
		if tt.wanted == "" {
			tt.wanted = "- v1.6.3 standard httproutes gateways"
		}
		var have []bundled
		for _, words := range tt.installed {
			have = append(have, bundle(words)...)
		}
		got := choose(bundle(tt.wanted), have)
		var want []string
		for _, kind := range strings.Fields(tt.applied) {
			want = append(want, kind+".gateway.networking.k8s.io")
		}
		if diff := cmp.Diff(want, got.apply); diff != "" {
			t.Errorf("%s: applied %s", tt.it, diff)
		}
		if (tt.says == "") != (got.said == "") || !strings.Contains(got.said, tt.says) {
			t.Errorf("%s: says %q, want %q", tt.it, got.said, tt.says)
		}
	}
}

func TestWhoseADefinitionIs(t *testing.T) {
	by := func(manager, subresource string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Subresource: subresource}
	}
	for _, tt := range []struct {
		it      string
		entries []metav1.ManagedFieldsEntry
		ours    bool
	}{
		{"we applied it", []metav1.ManagedFieldsEntry{by("ambit", "")}, true},
		{"the API server wrote its status", []metav1.ManagedFieldsEntry{by("ambit", ""), by("kube-apiserver", "status")}, true},
		{"kubectl applied it", []metav1.ManagedFieldsEntry{by("kubectl", "")}, false},
		{"somebody wrote to it after us", []metav1.ManagedFieldsEntry{by("ambit", ""), by("helm", "")}, false},
		{"nobody knows", nil, false},
	} {
		obj := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}}
		obj.SetName("httproutes.gateway.networking.k8s.io")
		obj.SetManagedFields(tt.entries)
		got, ok := readBundled(obj)
		if !ok || got.ours != tt.ours {
			t.Errorf("%s: ours is %t, want %t (it is one: %t)", tt.it, got.ours, tt.ours, ok)
		}
	}
}

func TestWhichDefinitionsAreOfTheGatewayAPI(t *testing.T) {
	for name, want := range map[string]bool{
		"httproutes.gateway.networking.k8s.io": true, "xmeshes.gateway.networking.x-k8s.io": true,
		"gateways.networking.istio.io": false, "authorizationpolicies.security.istio.io": false,
	} {
		obj := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}}
		obj.SetName(name)
		if _, got := readBundled(obj); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}

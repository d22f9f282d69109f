package crd

import (
	"os/exec"
	"strings"
	"testing"

	"sigs.k8s.io/gateway-api/pkg/consts"
	"sigs.k8s.io/yaml"
)

type definition struct {
	Metadata struct {
		Name        string
		Annotations map[string]string
	}
	Spec struct {
		Versions []struct {
			Name   string
			Served bool
		}
	}
}

// definitions are what is installed of a source, read from its module.
func definitions(t *testing.T, s Source) []definition {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", s.Module).Output()
	if err != nil {
		t.Fatalf("finding the module %s: %v", s.Module, err)
	}
	got, err := s.Read(strings.TrimSpace(string(dir)))
	if err != nil {
		t.Fatal(err)
	}
	var all []definition
	for doc := range strings.SplitSeq(strings.TrimPrefix(string(got), "---\n"), "\n---\n") {
		var d definition
		if err := yaml.Unmarshal([]byte(doc), &d); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

// oldest is the version in which the module's parts that we read are served;
// v1 unless it says otherwise.
var oldest = map[string]string{
	"xmeshes.gateway.networking.x-k8s.io":                 "v1alpha1",
	"xbackendtrafficpolicies.gateway.networking.x-k8s.io": "v1alpha1",
}

func TestTheModulesDefineEveryKindWeInstall(t *testing.T) {
	for _, s := range Sources() {
		docs := definitions(t, s)
		if len(docs) != len(s.Kinds) {
			t.Fatalf("%s: got %d documents, want %d", s.Embedded, len(docs), len(s.Kinds))
		}
		for i, d := range docs {
			if d.Metadata.Name != s.Kinds[i] {
				t.Errorf("%s: document %d defines %s, want %s", s.Embedded, i, d.Metadata.Name, s.Kinds[i])
			}
			want := "v1"
			if v := oldest[s.Kinds[i]]; v != "" {
				want = v
			}
			if !serves(d, want) {
				t.Errorf("%s does not serve %s: %+v", s.Kinds[i], want, d.Spec.Versions)
			}
		}
	}
}

func serves(d definition, version string) bool {
	for _, v := range d.Spec.Versions {
		if v.Name == version && v.Served {
			return true
		}
	}
	return false
}

func TestEveryDefinitionOfTheGatewayAPISaysItsChannelAndVersion(t *testing.T) {
	for channel, s := range map[string]Source{"standard": Standard, "experimental": Experimental} {
		for _, d := range definitions(t, s) {
			a := d.Metadata.Annotations
			if a[consts.ChannelAnnotation] != channel || a[consts.BundleVersionAnnotation] != consts.BundleVersion {
				t.Errorf("%s of the %s channel is annotated %v", d.Metadata.Name, channel, a)
			}
		}
	}
}

func TestAKindThatIsMissingIsAnError(t *testing.T) {
	all := "kind: CustomResourceDefinition\nmetadata:\n  name: a.x\n---\nkind: Other\nmetadata:\n  name: b.x\n"
	if got, err := Select([]byte(all), []string{"a.x"}); err != nil || !strings.Contains(string(got), "name: a.x") {
		t.Errorf("a.x: got %q, %v", got, err)
	}
	if got, err := Select([]byte(all), []string{"b.x"}); err == nil {
		t.Errorf("b.x is not a definition, got %q", got)
	}
}

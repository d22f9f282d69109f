package crd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestTheModuleDefinesEveryKindWeInstall(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "istio.io/api").Output()
	if err != nil {
		t.Fatalf("finding the istio.io/api module: %v", err)
	}
	all, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), SourceFile))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Select(all, Kinds)
	if err != nil {
		t.Fatal(err)
	}
	docs := strings.Split(strings.TrimPrefix(string(got), "---\n"), "\n---\n")
	if len(docs) != len(Kinds) {
		t.Fatalf("got %d documents, want %d", len(docs), len(Kinds))
	}
	for i, doc := range docs {
		var crd struct {
			Metadata struct{ Name string }
			Spec     struct {
				Versions []struct {
					Name   string
					Served bool
				}
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &crd); err != nil {
			t.Fatal(err)
		}
		if crd.Metadata.Name != Kinds[i] {
			t.Errorf("document %d defines %s, want %s", i, crd.Metadata.Name, Kinds[i])
		}
		if len(crd.Spec.Versions) == 0 || crd.Spec.Versions[0].Name != "v1" || !crd.Spec.Versions[0].Served {
			t.Errorf("%s does not serve v1: %+v", Kinds[i], crd.Spec.Versions)
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

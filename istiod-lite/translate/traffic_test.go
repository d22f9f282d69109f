package translate_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

var update = flag.Bool("update", false, "rewrite golden files")

// Every file of testdata/traffic is objects.yaml, what waypoints get of it
// (traffic.yaml, without zero values) and what the authors are told.
func TestTraffic(t *testing.T) {
	files, err := filepath.Glob("testdata/traffic/*.txtar")
	if err != nil || len(files) < 5 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(bytes.TrimSpace(a.Comment)) == 0 {
				t.Error("the file does not say what it promises")
			}
			m, conditions := translate.Translate(parse(t, string(a.Files[0].Data)))
			got := &txtar.Archive{Comment: a.Comment, Files: []txtar.File{
				a.Files[0], {Name: "traffic.yaml", Data: trafficYAML(t, m)}, {Name: "conditions.txt", Data: ofTraffic(conditions)},
			}}
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := cmp.Diff(string(txtar.Format(a)), string(txtar.Format(got))); d != "" {
				t.Errorf("-want +got (-update rewrites):\n%s", d)
			}
		})
	}
}

func trafficYAML(t *testing.T, m mesh.Model) []byte {
	t.Helper()
	out := map[string]any{}
	for k, traffic := range m.Traffic {
		b, err := json.Marshal(traffic)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		fields, _ := withoutZeros(v).(map[string]any)
		delete(fields, "Service")
		out[k.String()] = fields
	}
	b, err := yaml.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func withoutZeros(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if v[k] = withoutZeros(e); v[k] == nil {
				delete(v, k)
			}
		}
		if len(v) == 0 {
			return nil
		}
		return v
	case []any:
		for i := range v {
			v[i] = withoutZeros(v[i])
		}
		return v
	case string, float64, bool:
		if v == "" || v == 0.0 || v == false {
			return nil
		}
	}
	return v
}

// ofTraffic are the conditions of rules and retry policies.
func ofTraffic(all []translate.Condition) []byte {
	var b bytes.Buffer
	for _, c := range all {
		if c.Object.Kind != objects.KindDestinationRule && c.Object.Kind != objects.KindXBackendTrafficPolicy {
			continue
		}
		parent := ""
		if c.Parent != (translate.Parent{}) {
			parent = fmt.Sprintf(" for %s %s", c.Parent.Kind, c.Parent.Name)
		}
		fmt.Fprintf(&b, "%s%s: %s=%t %s: %s\n", c.Object, parent, c.Type, c.Status, c.Reason, c.Message)
	}
	return b.Bytes()
}

package provision

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

var update = flag.Bool("update", false, "rewrite golden files")

var settings = Settings{Image: "registry.example/waypoint:v1", Namespace: "istio-system"}

func TestPlansAreTheGoldenOnes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			set, err := objects.Parse(archive.Files[0].Data)
			if err != nil {
				t.Fatal(err)
			}
			got := document(t, Make(settings, &set, nil).Apply)
			if *update {
				archive.Files = append(archive.Files[:1], txtar.File{Name: "plan.yaml", Data: got})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(archive.Files[1].Data), string(got)); d != "" {
				t.Errorf("(-golden +planned):\n%s", d)
			}
		})
	}
}

func document(t *testing.T, all []*unstructured.Unstructured) []byte {
	t.Helper()
	var b bytes.Buffer
	for i, o := range all {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			b.WriteString("---\n")
		}
		b.Write(text)
	}
	return b.Bytes()
}

func TestClaimsAreMadeOnlyWhereDefinedAndMissing(t *testing.T) {
	define := func(s *objects.Set, name string) {
		if _, err := s.Put(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	claims := func(s *objects.Set) (kinds []string) {
		for _, o := range Make(Settings{}, s, nil).Create {
			kinds = append(kinds, o.GetKind()+" "+o.GetName())
		}
		return kinds
	}
	set := objects.Set{}
	if got := claims(&set); got != nil {
		t.Errorf("nothing is defined, and %v are made", got)
	}
	define(&set, definitionClass)
	define(&set, definitionMesh)
	if d := cmp.Diff([]string{"GatewayClass istio-waypoint", "XMesh ambit"}, claims(&set)); d != "" {
		t.Errorf("both are defined:\n%s", d)
	}
	if err := set.Read([]byte("apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: istio-waypoint}\nspec: {controllerName: somebody.example/else}\n")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"XMesh ambit"}, claims(&set)); d != "" {
		t.Errorf("a class that is there, even another's, is left alone:\n%s", d)
	}
}

func TestWithoutAnImageNoWaypointIsMade(t *testing.T) {
	set, err := objects.Parse([]byte("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: w, namespace: shop}\nspec: {gatewayClassName: istio-waypoint, listeners: []}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := Make(Settings{}, &set, nil).Apply; got != nil {
		t.Errorf("made %v", got)
	}
	if got := Make(settings, &set, nil).Apply; len(got) != 3 {
		t.Errorf("with an image, made %d objects", len(got))
	}
}

func TestGatewaysAreMadeWhereServicesNeedThem(t *testing.T) {
	set, err := objects.Parse([]byte(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: auto-waypoint, namespace: busy, uid: u1, labels: {ambit.io/auto-waypoint: "true"}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: auto-waypoint, namespace: idle, uid: u2, labels: {ambit.io/auto-waypoint: "true"}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: auto-waypoint, namespace: by-hand, uid: u3}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	key := func(ns string) objects.Key { return objects.Key{Namespace: ns, Name: "auto-waypoint"} }
	p := Make(settings, &set, []objects.Key{key("busy"), key("new")})
	if len(p.Create) != 1 || p.Create[0].GetKind() != "Gateway" || p.Create[0].GetNamespace() != "new" || p.Create[0].GetLabels()[LabelAuto] != "true" {
		t.Errorf("makes %v, want the one in namespace new", p.Create)
	}
	if d := cmp.Diff([]Idle{{key("idle"), "u2"}}, p.Idle); d != "" {
		t.Errorf("a user's own is never idle (-want +got):\n%s", d)
	}
	if len(p.Apply) != 9 {
		t.Errorf("an idle one lost its objects: %d are left of 9", len(p.Apply))
	}
}

func TestOverlaysThatCannotBeLaidHoldTheWaypoint(t *testing.T) {
	for _, tt := range []struct{ sentence, ref, data, says string }{
		{"one that is not there", "kind: ConfigMap, name: gone", "{}", "ConfigMap shop/gone of parametersRef is not there"},
		{"one that is no ConfigMap", "kind: Secret, name: mine", "{}", "only a ConfigMap is understood"},
		{"no YAML", "kind: ConfigMap, name: mine", `{service: "a: b: c"}`, "key service of ConfigMap shop/mine"},
		{"a field that the kind does not have", "kind: ConfigMap, name: mine", `{deployment: "spec: {replcas: 2}"}`, "replcas"},
		{"another name", "kind: ConfigMap, name: mine", `{service: "metadata: {name: x}"}`, "metadata.name cannot be set"},
	} {
		set, err := objects.Parse([]byte(`
apiVersion: v1
kind: ConfigMap
metadata: {name: mine, namespace: shop}
data: ` + tt.data + `
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: w, namespace: shop}
spec: {gatewayClassName: istio-waypoint, infrastructure: {parametersRef: {group: "", ` + tt.ref + `}}, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`))
		if err != nil {
			t.Fatal(err)
		}
		key := objects.Key{Namespace: "shop", Name: "w"}
		p := Make(settings, &set, nil)
		if len(p.Apply) > 0 || !cmp.Equal(p.Hold, []objects.Key{key}) || !strings.Contains(p.Problems[key], tt.says) {
			t.Errorf("%s: applies %d objects, holds %v, says %v, want %q", tt.sentence, len(p.Apply), p.Hold, p.Problems, tt.says)
		}
		_, all := translate.Translate(set)
		told := p.Tell(all)[0]
		if told.Type != translate.TypeAccepted || told.Status || told.Reason != "InvalidParameters" || !strings.Contains(told.Message, tt.says) {
			t.Errorf("%s: told %+v", tt.sentence, told)
		}
	}
}

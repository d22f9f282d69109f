package apply

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
)

const twoObjects = `# a comment
---
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
`

func TestReadingFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.yaml": twoObjects, "b.json": `{"apiVersion":"v1","kind":"Service","metadata":{"name":"json"}}`, "README.md": "not: [a manifest", "empty.yaml": "---\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "below.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		paths []string
		stdin string
		want  string
		says  string
	}{
		{[]string{filepath.Join(dir, "a.yaml")}, "", "Service/web Namespace/shop", ""},
		{[]string{dir}, "", "Service/web Namespace/shop Service/json", ""},
		{[]string{"-"}, twoObjects, "Service/web Namespace/shop", ""},
		{[]string{"-", filepath.Join(dir, "b.json")}, twoObjects, "Service/web Namespace/shop Service/json", ""},
		{[]string{filepath.Join(dir, "empty.yaml")}, "", "", "no object in"},
		{[]string{filepath.Join(dir, "missing.yaml")}, "", "", "no such file"},
		{[]string{"-"}, "a: [", "", "standard input: document 1"},
	} {
		objs, err := Read(tt.paths, strings.NewReader(tt.stdin))
		if tt.says != "" {
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v: error %v, want %q", tt.paths, err, tt.says)
			}
			continue
		}
		var got []string
		for _, o := range objs {
			got = append(got, o.GetKind()+"/"+o.GetName())
		}
		if strings.Join(got, " ") != tt.want || err != nil {
			t.Errorf("%v: read %v, %v; want %s", tt.paths, got, err, tt.want)
		}
	}
}

// apiServer knows services and namespaces, and notes what is applied or deleted.
type apiServer struct{ applied []string }

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	answer := func(v any) { json.NewEncoder(w).Encode(v) }
	switch {
	case r.URL.Path == "/api":
		answer(metav1.APIVersions{Versions: []string{"v1"}})
	case r.URL.Path == "/apis":
		answer(metav1.APIGroupList{})
	case r.URL.Path == "/api/v1":
		answer(metav1.APIResourceList{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "services", Kind: "Service", Namespaced: true, Verbs: metav1.Verbs{"patch"}},
			{Name: "namespaces", Kind: "Namespace", Verbs: metav1.Verbs{"patch"}},
		}})
	case r.Method != http.MethodPatch && strings.HasSuffix(r.URL.Path, "/absent"):
		w.WriteHeader(http.StatusNotFound)
		answer(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound})
	case r.Method == http.MethodGet:
		parts := strings.Split(r.URL.Path, "/")
		answer(map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": parts[len(parts)-1], "namespace": "default", "resourceVersion": "88"}})
	case r.Method == http.MethodDelete:
		s.applied = append(s.applied, "DELETE "+r.URL.RequestURI())
		answer(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess})
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml":
		body, _ := io.ReadAll(r.Body)
		s.applied = append(s.applied, r.URL.RequestURI())
		if strings.HasSuffix(r.URL.Path, "/refused") {
			w.WriteHeader(http.StatusConflict)
			answer(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Message: "conflict with manager helm", Reason: metav1.StatusReasonConflict, Code: http.StatusConflict})
			return
		}
		var obj map[string]any
		if err := yaml.Unmarshal(body, &obj); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		obj["metadata"].(map[string]any)["resourceVersion"] = "77"
		answer(obj)
	default:
		http.NotFound(w, r)
	}
}

func TestObjectsAreAppliedInOrderAndTheirVersionsKnown(t *testing.T) {
	service := func(name string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\n---\n"
	}
	web := ask.Version{APIVersion: "v1", Kind: "Service", Namespace: "default", Name: "web", ResourceVersion: "77"}
	shop := ask.Version{APIVersion: "v1", Kind: "Namespace", Name: "shop", ResourceVersion: "77"}
	for _, tt := range []struct {
		sentence string
		text     string
		options  Options
		applied  []string
		want     []ask.Version
		printed  string
		says     string
	}{
		{
			"two objects", twoObjects, Options{},
			[]string{"/api/v1/namespaces/default/services/web?fieldManager=kubectl&force=false", "/api/v1/namespaces/shop?fieldManager=kubectl&force=false"},
			[]ask.Version{web, shop}, "applied service/web in default\napplied namespace/shop\n", "",
		}, {
			"with every option", service("web"), Options{Namespace: "bank", Manager: "me", Force: true, DryRun: true},
			[]string{"/api/v1/namespaces/bank/services/web?dryRun=All&fieldManager=me&force=true"},
			[]ask.Version{{APIVersion: "v1", Kind: "Service", Namespace: "bank", Name: "web", ResourceVersion: "77"}}, "would apply service/web in bank\n", "",
		}, {
			"what is refused ends it", service("web") + service("refused") + service("never"), Options{},
			[]string{"/api/v1/namespaces/default/services/web?fieldManager=kubectl&force=false", "/api/v1/namespaces/default/services/refused?fieldManager=kubectl&force=false"},
			[]ask.Version{web}, "applied service/web in default\n", "applying service/refused in default: conflict with manager helm",
		},
		{"a kind that the cluster does not have", "apiVersion: a.example/v1\nkind: Odd\nmetadata: {name: x}\n", Options{}, nil, nil, "", "the cluster does not serve Odd"},
		{"a document that is no object", "foo: bar\n", Options{}, nil, nil, "", "without apiVersion or kind"},
		{"an object without a name", "apiVersion: v1\nkind: Service\nmetadata: {}\n", Options{}, nil, nil, "", "a Service without a name"},
	} {
		s := &apiServer{}
		server := httptest.NewServer(s)
		cluster, err := reach.New(&rest.Config{Host: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		objs, err := Read([]string{"-"}, strings.NewReader(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		var printed bytes.Buffer
		got, err := To(t.Context(), cluster, objs, tt.options, &printed)
		server.Close()
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: error %v, want %q", tt.sentence, err, tt.says)
		}
		if d := cmp.Diff(tt.applied, s.applied); d != "" {
			t.Errorf("%s: asked of the server (-want +got):\n%s", tt.sentence, d)
		}
		if d := cmp.Diff(tt.want, got); d != "" || printed.String() != tt.printed {
			t.Errorf("%s: printed %q, versions (-want +got):\n%s", tt.sentence, printed.String(), d)
		}
	}
}

func TestObjectsAreDeletedTheLastFirstAndTheirVersionsKnown(t *testing.T) {
	s := &apiServer{}
	server := httptest.NewServer(s)
	defer server.Close()
	cluster, err := reach.New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	var text string
	for _, name := range []string{"web", "absent", "db"} {
		text += "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\n---\n"
	}
	objs, err := Read([]string{"-"}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	got, err := Delete(t.Context(), cluster, objs, "", &printed)
	if err != nil {
		t.Fatal(err)
	}
	version := func(name string) ask.Version {
		return ask.Version{APIVersion: "v1", Kind: "Service", Namespace: "default", Name: name, ResourceVersion: "88", Gone: true}
	}
	if d := cmp.Diff([]ask.Version{version("db"), version("web")}, got); d != "" {
		t.Errorf("versions (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"DELETE /api/v1/namespaces/default/services/db", "DELETE /api/v1/namespaces/default/services/web"}, s.applied); d != "" {
		t.Errorf("asked of the server (-want +got):\n%s", d)
	}
	if want := "deleted service/db in default\nabsent service/absent in default\ndeleted service/web in default\n"; printed.String() != want {
		t.Errorf("printed %q", printed.String())
	}
}

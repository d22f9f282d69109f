package manifests

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/manifests/crd"
)

var update = flag.Bool("update", false, "rewrite golden files")

func render(t *testing.T, cfg Config) []File {
	t.Helper()
	files, err := Render(cfg, crd.Definitions{
		Istio:        []byte("# the definitions of the istio.io/api module stand here\n"),
		Standard:     []byte("# the definitions of the Gateway API's standard channel stand here\n"),
		Experimental: []byte("# the definitions of the Gateway API's experimental channel stand here\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestTheDefaultInstallationIsTheGoldenOne(t *testing.T) {
	archive := &txtar.Archive{Comment: []byte("The default installation, as `make manifests` renders it. Rewrite with: go test ./manifests -update\n")}
	for _, f := range render(t, Config{}) {
		archive.Files = append(archive.Files, txtar.File{Name: f.Name, Data: f.Body})
	}
	got := txtar.Format(archive)
	const golden = "testdata/default.txtar"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the installation changed (-golden +rendered):\n%s", diff)
	}
}

func TestWhatIsConfiguredAppears(t *testing.T) {
	files := render(t, Config{
		Repo: "registry.example/mesh/", Tag: "v7", PullPolicy: "Always", TrustDomain: "corp.example", ClusterID: "east",
		LogLevel: "debug", CNIConfDir: "/conf", CNIBinDir: "/bin-dir", NetnsDir: "/netns", TraceEndpoint: "http://collector:4317",
	})
	var all bytes.Buffer
	for _, f := range files {
		all.Write(f.Body)
	}
	for _, want := range []string{
		"image: registry.example/mesh/istiod:v7", "image: registry.example/mesh/ztunnel:v7", "image: registry.example/mesh/cni:v7",
		"imagePullPolicy: Always", "trustDomain: corp.example", `{name: CLUSTER_ID, value: "east"}`, "value: debug",
		"{path: /conf}", "{path: /bin-dir}", "mountPath: /netns,",
		`{name: OTEL_EXPORTER_OTLP_ENDPOINT, value: "http://collector:4317"}`, `{name: OTEL_TRACES_SAMPLER_ARG, value: "0.01"}`,
	} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("rendered manifests lack %q", want)
		}
	}
	for _, unwanted := range []string{"localhost/ambit", "IfNotPresent", "/etc/cni", "{{"} {
		if s := all.String(); strings.Contains(strings.ReplaceAll(s, "/host/etc/cni/net.d", ""), unwanted) {
			t.Errorf("rendered manifests still hold %q", unwanted)
		}
	}
}

// object decodes a document strictly into the Go type of its kind, so that a
// misspelt field is an error.
func object(t *testing.T, doc string) any {
	t.Helper()
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
	kinds := map[string]any{
		"Namespace": &corev1.Namespace{}, "ServiceAccount": &corev1.ServiceAccount{}, "ConfigMap": &corev1.ConfigMap{}, "Service": &corev1.Service{},
		"ClusterRole": &rbacv1.ClusterRole{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{}, "Role": &rbacv1.Role{}, "RoleBinding": &rbacv1.RoleBinding{},
		"Deployment": &appsv1.Deployment{}, "DaemonSet": &appsv1.DaemonSet{}, "PodDisruptionBudget": &policyv1.PodDisruptionBudget{},
	}
	obj, ok := kinds[meta.Kind]
	if !ok {
		t.Fatalf("a kind this test does not know: %q", meta.Kind)
	}
	if err := yaml.UnmarshalStrict([]byte(doc), obj); err != nil {
		t.Errorf("%v in\n%s", err, doc)
	}
	return obj
}

// isTemplate is true for a file that we wrote, and false for definitions.
func isTemplate(name string) bool {
	return name != "crds.yaml" && name != GatewayAPIFile && name != kustomizationFile
}

func objects(t *testing.T) []any {
	var all []any
	for _, f := range render(t, Config{}) {
		if !isTemplate(f.Name) {
			continue
		}
		for doc := range strings.SplitSeq(string(f.Body), "\n---\n") {
			all = append(all, object(t, doc))
		}
	}
	return all
}

func podSpecs(t *testing.T) map[string]corev1.PodSpec {
	specs := map[string]corev1.PodSpec{}
	for _, obj := range objects(t) {
		switch o := obj.(type) {
		case *appsv1.Deployment:
			specs[o.Name] = o.Spec.Template.Spec
		case *appsv1.DaemonSet:
			specs[o.Name] = o.Spec.Template.Spec
		}
	}
	return specs
}

func TestEveryContainerIsConfined(t *testing.T) {
	allowed := map[string][]corev1.Capability{
		"istiod":         nil,
		"ztunnel":        {"NET_ADMIN", "SYS_ADMIN", "NET_RAW"},
		"istio-cni-node": {"NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "NET_RAW", "DAC_OVERRIDE"},
	}
	specs := podSpecs(t)
	if len(specs) != len(allowed) {
		t.Errorf("got %d workloads, want %d", len(specs), len(allowed))
	}
	for name, spec := range specs {
		for _, c := range spec.Containers {
			sc := c.SecurityContext
			if sc == nil || sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem {
				t.Errorf("%s: the root file system is writable", name)
				continue
			}
			if sc.Privileged != nil && *sc.Privileged || sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation {
				t.Errorf("%s: may gain privileges", name)
			}
			if !slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("%s: drops %v, want ALL", name, sc.Capabilities.Drop)
			}
			if !slices.Equal(sc.Capabilities.Add, allowed[name]) {
				t.Errorf("%s: adds %v, want %v", name, sc.Capabilities.Add, allowed[name])
			}
			if len(c.Resources.Requests) == 0 || c.ReadinessProbe == nil {
				t.Errorf("%s: requests or readiness missing", name)
			}
		}
		if spec.HostNetwork || spec.HostIPC {
			t.Errorf("%s: shares the host's network or IPC", name)
		}
	}
}

func TestTheNodeProxyCannotTalkToTheAPIServer(t *testing.T) {
	spec := podSpecs(t)["ztunnel"]
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Error("the default token is mounted")
	}
	for _, v := range spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience != "istio-ca" {
				t.Errorf("a token for audience %q is mounted", s.ServiceAccountToken.Audience)
			}
		}
	}
	for _, obj := range objects(t) {
		var subjects []rbacv1.Subject
		switch o := obj.(type) {
		case *rbacv1.ClusterRoleBinding:
			subjects = o.Subjects
		case *rbacv1.RoleBinding:
			subjects = o.Subjects
		}
		for _, s := range subjects {
			if s.Name == "ztunnel" {
				t.Error("ztunnel has a role")
			}
		}
	}
}

func TestNoRoleReachesSecretsOfOtherNamespacesOrWildcards(t *testing.T) {
	for _, obj := range objects(t) {
		var rules []rbacv1.PolicyRule
		cluster := false
		switch o := obj.(type) {
		case *rbacv1.ClusterRole:
			rules, cluster = o.Rules, true
		case *rbacv1.Role:
			rules = o.Rules
		}
		for _, r := range rules {
			if slices.Contains(r.Verbs, "*") || slices.Contains(r.Resources, "*") || slices.Contains(r.APIGroups, "*") {
				t.Errorf("a wildcard in %+v", r)
			}
			if cluster && slices.Contains(r.Resources, "secrets") {
				t.Errorf("secrets of the whole cluster in %+v", r)
			}
		}
	}
}

// TestEveryPrivilegeHasItsReason reads the templates as text: the reason is a
// comment, on the capability's line or above the rule.
func TestEveryPrivilegeHasItsReason(t *testing.T) {
	capability := regexp.MustCompile(`^\s+- [A-Z]+_[A-Z_]+\b`)
	checked := 0
	for _, name := range order {
		if !isTemplate(name) {
			continue
		}
		body, err := os.ReadFile(filepath.Join("yaml", name))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(body), "\n")
		for i, line := range lines {
			switch {
			case capability.MatchString(line):
				checked++
				if !strings.Contains(line, " # ") {
					t.Errorf("%s:%d: no reason beside the capability: %s", name, i+1, line)
				}
			case strings.HasPrefix(line, "- apiGroups:"):
				checked++
				if previous := strings.TrimSpace(lines[i-1]); !strings.HasPrefix(previous, "#") && !sameSubject(lines, i) {
					t.Errorf("%s:%d: no reason above the rule: %s", name, i+1, line)
				}
			}
		}
	}
	if checked < 15 {
		t.Errorf("only %d privileges found: the test no longer reads the templates", checked)
	}
}

// sameSubject is true for a rule that continues the one right above it: same
// group and resource, one reason for both.
func sameSubject(lines []string, i int) bool {
	for j := i - 1; j > 0; j-- {
		if strings.HasPrefix(lines[j], "- apiGroups:") {
			return lines[j] == lines[i] && lines[j+1] == lines[i+1]
		}
	}
	return false
}

func TestWriteThenReadGivesTheSameInstallation(t *testing.T) {
	dir := t.TempDir()
	defs := crd.Definitions{Istio: []byte("kind: A\n"), Standard: []byte("kind: B\n"), Experimental: []byte("kind: C\n")}
	for _, tt := range []struct {
		channel string
		want    []string
		gateway string
	}{
		{"", []string{"namespace.yaml", "crds.yaml", "gateway-api.yaml", "istiod.yaml", "cni.yaml", "ztunnel.yaml"}, "kind: B\n"},
		{Experimental, []string{"namespace.yaml", "crds.yaml", "gateway-api.yaml", "istiod.yaml", "cni.yaml", "ztunnel.yaml"}, "kind: C\n"},
		{None, []string{"namespace.yaml", "crds.yaml", "istiod.yaml", "cni.yaml", "ztunnel.yaml"}, ""},
	} {
		if err := Write(dir, Config{Tag: "x", GatewayAPI: tt.channel}, defs); err != nil {
			t.Fatal(err)
		}
		got, err := Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		var gateway string
		for _, f := range got {
			names = append(names, f.Name)
			if len(f.Body) == 0 {
				t.Errorf("channel %q: %s is empty", tt.channel, f.Name)
			}
			if f.Name == GatewayAPIFile {
				gateway = string(f.Body)
			}
		}
		if diff := cmp.Diff(tt.want, names); diff != "" || gateway != tt.gateway {
			t.Errorf("channel %q: definitions of the Gateway API are %q, files %s", tt.channel, gateway, diff)
		}
	}
	if _, err := Read(t.TempDir()); err == nil {
		t.Error("an empty directory was read as an installation")
	}
	if _, err := os.Stat(filepath.Join(dir, GatewayAPIFile)); err == nil {
		t.Error("the definitions of an earlier rendering are still there, and kubectl apply -f would take them")
	}
}

func TestAChannelThatDoesNotExistIsAnError(t *testing.T) {
	if _, err := Render(Config{GatewayAPI: "nightly"}, crd.Definitions{}); err == nil || !strings.Contains(err.Error(), "want standard, experimental or none") {
		t.Errorf("got %v", err)
	}
}

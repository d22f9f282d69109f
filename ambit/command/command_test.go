package command

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite golden files")

// run gives what a command line prints and its exit code.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(context.Background(), args, "v0-test", &out, &errs)
	return out.String(), errs.String(), code
}

func TestTablesOfASavedDump(t *testing.T) {
	const path = "testdata/tables.txtar"
	lines := []string{
		"ztunnel workloads", "ztunnel workloads -n shop", "ztunnel workloads --address fd00:1::4", "ztunnel workload -n kube-system -o json",
		"ztunnel services", "ztunnel services --address 10.96.0.9", "ztunnel policies", "ztunnel policies -n nowhere -o json",
		"ztunnel certificates", "ztunnel connections", "ztunnel connections -n shop --direction inbound -o json",
	}
	archive := &txtar.Archive{Comment: []byte("What each command prints of dump.json. Rewrite with: go test ./ambit/command -update\n")}
	for _, line := range lines {
		stdout, stderr, code := run(t, append(strings.Fields(line), "-f", "testdata/dump.json")...)
		if code != 0 || stderr != "" {
			t.Errorf("ambit %s: exit %d, stderr %q", line, code, stderr)
		}
		archive.Files = append(archive.Files, txtar.File{Name: line, Data: []byte(stdout)})
	}
	golden(t, path, archive)
}

func TestCircuitsOfASavedDump(t *testing.T) {
	archive := &txtar.Archive{Comment: []byte("What each command prints of waypoint.json. Rewrite with: go test ./ambit/command -update\n")}
	for _, line := range []string{"waypoint circuits", "waypoint circuits --all -n shop", "wp circuits -n bank -o json"} {
		stdout, stderr, code := run(t, append(strings.Fields(line), "-f", "testdata/waypoint.json")...)
		if code != 0 || stderr != "" {
			t.Errorf("ambit %s: exit %d, stderr %q", line, code, stderr)
		}
		archive.Files = append(archive.Files, txtar.File{Name: line, Data: []byte(stdout)})
	}
	golden(t, "testdata/circuits.txtar", archive)
}

func TestExitCodesAndWhatIsSaid(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte("<html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		line string
		code int
		says string
	}{
		{"frobnicate", ExitUsage, `unknown subcommand "frobnicate"`},
		{"ztunnel frobnicate", ExitUsage, `unknown subcommand "frobnicate" (see: ambit ztunnel --help)`},
		{"install now", ExitUsage, `takes no argument, got "now"`},
		{"check --no-such-flag", ExitUsage, "unknown flag"},
		{"ztunnel connections --direction sideways -f testdata/dump.json", ExitUsage, "want inbound or outbound"},
		{"ztunnel policies -o xml -f testdata/dump.json", ExitUsage, "want table or json"},
		{"ztunnel policies --node n1 -f testdata/dump.json", ExitUsage, "--node chooses whom to ask"},
		{"ztunnel policies -f " + missing, ExitError, "reading the dump"},
		{"ztunnel policies -f " + bad, ExitError, "reading a ztunnel state dump"},
		{"why", ExitUsage, "takes the id of a decision, or SOURCE DESTINATION"},
		{"why K7Q2M4XA", ExitUsage, "no id of a decision"},
		{"why k7q2m4xa --kubeconfig " + missing, ExitError, "finding the cluster"},
		{"why client web:80", ExitUsage, "want namespace/name of a pod"},
		{"why shop/client web:http", ExitUsage, "want DESTINATION or DESTINATION:PORT"},
		{"why shop/client web:80 --kubeconfig " + missing, ExitError, "finding the cluster"},
		{"can shop/client", ExitUsage, "takes SOURCE METHOD URL, or SOURCE DESTINATION:PORT"},
		{"can shop/client GET", ExitUsage, "want DESTINATION:PORT"},
		{"can shop/client web:80 --kubeconfig " + missing, ExitError, "finding the cluster"},
		{"can client GET http://web/", ExitUsage, "want namespace/name"},
		{"can shop/client GET http://web/ -H nothing", ExitUsage, "want \"Name: value\""},
		{"can shop/client GET web --kubeconfig " + missing, ExitError, "finding the cluster"},
		{"status --kubeconfig " + missing, ExitError, "finding the cluster"},
		{"apply", ExitUsage, "apply what?"},
		{"apply -f x --wait --dry-run", ExitUsage, "--wait waits for what --dry-run does not write"},
		{"apply -f " + missing, ExitError, "reading objects"},
		{"delete", ExitUsage, "delete what?"},
		{"delete -f " + missing, ExitError, "reading objects"},
		{"apply -f " + bad + " --kubeconfig " + missing, ExitError, "reading objects"},
		{"check --kubeconfig " + missing, ExitError, "finding the cluster"},
		{"install --manifests " + missing, ExitError, "write them with `make manifests`"},
		{"install --manifests " + missing + " --image-tag x", ExitUsage, "--manifests holds rendered files"},
	} {
		stdout, stderr, code := run(t, strings.Fields(tt.line)...)
		if code != tt.code || !strings.Contains(stderr, tt.says) || stdout != "" {
			t.Errorf("ambit %s: exit %d (want %d), stdout %q, stderr %q (want %q in it)", tt.line, code, tt.code, stdout, stderr, tt.says)
		}
	}
}

func TestVersion(t *testing.T) {
	stdout, _, code := run(t, "version", "-o", "json")
	var v map[string]string
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || code != 0 || v["version"] != "v0-test" {
		t.Errorf("exit %d, printed %q, %v", code, stdout, err)
	}
}

func TestHelpNamesEverySubcommandAndChangesNothing(t *testing.T) {
	stdout, _, code := run(t)
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	for _, sub := range []string{"install", "uninstall", "check", "ztunnel", "waypoint", "apply", "delete", "status", "why", "can", "version", "istio.io/dataplane-mode=ambient"} {
		if !strings.Contains(stdout, sub) {
			t.Errorf("help lacks %q", sub)
		}
	}
	stdout, _, _ = run(t, "ztunnel")
	for _, q := range queries {
		if !strings.Contains(stdout, q.use) {
			t.Errorf("help of ztunnel lacks %q", q.use)
		}
	}
}

func TestDryRunPrintsWhatWouldBeApplied(t *testing.T) {
	dir := t.TempDir()
	files := []string{"namespace.yaml", "crds.yaml", "istiod.yaml", "cni.yaml", "ztunnel.yaml"}
	list := "kind: Kustomization\nresources: [" + strings.Join(files, ", ") + "]\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f), fmt.Appendf(nil, "kind: K%d\n", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, code := run(t, "install", "--manifests", dir, "--dry-run")
	if code != 0 || strings.Count(stdout, "kind: K") != 5 || strings.Index(stdout, "K0") > strings.Index(stdout, "K4") {
		t.Errorf("exit %d, stderr %q, printed\n%s", code, stderr, stdout)
	}
}

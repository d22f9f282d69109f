//go:build e2e

package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/ambit/command"
	"github.com/ambit-mesh/ambit/e2e/demo"
)

// kubeconfig is the stage's.
func kubeconfig() string {
	if mesh.Cluster != nil {
		return mesh.Cluster.Kubeconfig()
	}
	return os.Getenv("KUBECONFIG")
}

// ambit runs the command-line tool.
func ambit(ctx context.Context, args ...string) (string, error) {
	var out, complaint bytes.Buffer
	code := command.Run(ctx, append(args, "--kubeconfig", kubeconfig()), "e2e", &out, &complaint)
	if code != 0 {
		return out.String(), fmt.Errorf("ambit %s: exit code %d: %s%s", strings.Join(args, " "), code, complaint.String(), out.String())
	}
	return out.String(), nil
}

// TestTheCommandShowsWhatTheProxiesKnow: every table has the rows of a scene.
func TestTheCommandShowsWhatTheProxiesKnow(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		if err := errors.Join(sc.Service(ctx, "server", "server"), sc.Apply(ctx, sc.authz("everybody", "  action: ALLOW\n  rules: [{}]\n"))); err != nil {
			return err
		}
		held := sc.Begin(ctx, "client", "hold", "--duration", "20s", address(hosts[0], tcpPort))
		for _, row := range []struct {
			table string
			want  map[string]string
		}{
			{"workloads", map[string]string{"namespace": sc.NS, "podName": "server", "protocol": "HBONE"}},
			{"services", map[string]string{"namespace": sc.NS, "serviceName": "server", "endpoints": "1/1"}},
			{"policies", map[string]string{"namespace": sc.NS, "policyName": "everybody"}},
			{"certificates", map[string]string{"certificateName": Identity(sc.NS, "server"), "type": "Leaf", "validCert": "true"}},
			{"connections", map[string]string{"workload": sc.NS + "/server", "direction": "Inbound", "protocol": "HBONE", "peer": Identity(sc.NS, "client")}},
		} {
			if err := Soon(ctx, func(ctx context.Context) error { return shows(ctx, row.table, row.want) }); err != nil {
				return err
			}
		}
		return held.EndOK()
	})
}

// shows is an error unless a table has a row with the wanted cells.
func shows(ctx context.Context, table string, want map[string]string) error {
	out, err := ambit(ctx, "ztunnel", table, "-o", "json")
	if err != nil {
		return err
	}
	var rows []map[string]string
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		return fmt.Errorf("ambit ztunnel %s: %w", table, err)
	}
next:
	for _, row := range rows {
		for k, v := range want {
			if row[k] != v {
				continue next
			}
		}
		return nil
	}
	return fmt.Errorf("ambit ztunnel %s: none of %d rows has %v", table, len(rows), want)
}

// TestTheRenderedManifestsInstall: what `make manifests` renders is accepted
// by the API server, and is what is installed.
func TestTheRenderedManifestsInstall(t *testing.T) {
	c := onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		dir := t.TempDir()
		render := exec.CommandContext(ctx, "go", "run", "./manifests/cmd/manifests", "-out", dir)
		render.Dir = sc.Checkout
		if out, err := render.CombinedOutput(); err != nil {
			return fmt.Errorf("rendering: %w: %s", err, out)
		}
		out, err := c.Kubectl(ctx, "", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", dir)
		if err != nil {
			return err
		}
		if n := strings.Count(out, "serverside-applied"); n < 15 {
			return fmt.Errorf("only %d objects: %s", n, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "kustomization.yaml")); err != nil {
			return err
		}
		// Soon: what other tests did a moment ago may still be settling.
		return Soon(ctx, func(ctx context.Context) error {
			_, err := ambit(ctx, "check", "-n", "istio-system")
			return err
		})
	})
}

// TestTheDemoPlays on this cluster too.
func TestTheDemoPlays(t *testing.T) {
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		var out bytes.Buffer
		err := demo.Play(ctx, sc.Stage, &out)
		t.Log(out.String())
		return errors.Join(err, sc.DeleteNamespace(ctx, "shop"))
	})
}

// TestUninstallLeavesNothingBehind: no rule in a pod, no file on a node, and the
// pods keep talking;
// afterwards the mesh installs again and takes them back.
func TestUninstallLeavesNothingBehind(t *testing.T) {
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		sc.Cuts()
		// What is said without the mesh is heard: nothing is until it is back.
		sc.Undo(vigil.Resume)
		sc.Undo(sc.Install)
		if err := vigil.Pause(ctx); err != nil {
			return err
		}
		if err := sc.Uninstall(ctx); err != nil {
			return err
		}
		if err := sc.Works(ctx, "client", "get", url(hosts[0], httpPort)); err != nil {
			return fmt.Errorf("after the uninstallation: %w", err)
		}
		if err := errors.Join(nothingInKernel(ctx), nothingOnNodes(ctx), nothingInAPI(ctx, sc)); err != nil {
			return err
		}
		if err := sc.Install(ctx); err != nil {
			return err
		}
		if err := sc.Join(ctx); err != nil {
			return err
		}
		return sc.encryptedBetween(ctx, "client", "server")
	})
}

func nothingInKernel(ctx context.Context) error {
	all, err := netnsOf(mesh)
	if err != nil {
		return err
	}
	var errs []error
	for ns, pid := range all {
		found, err := traces(ctx, pid)
		if err == nil && found != "" {
			err = fmt.Errorf("network namespace %s of process %d holds %s", ns, pid, found)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// nodeDirs are where the mesh writes on a node.
var nodeDirs = []string{"/opt/cni/bin", "/etc/cni/net.d", "/var/run/istio-cni", "/var/run/ztunnel", "/run/istio-cni", "/run/ztunnel"}

func nothingOnNodes(ctx context.Context) error {
	status, err := mesh.Cluster.Status(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range status.Machines {
		if len(m.Pods) == 0 {
			continue // the control plane's
		}
		for _, dir := range nodeDirs {
			root := fmt.Sprintf("/proc/%d/root%s", m.PID, dir)
			files, _ := os.ReadDir(root)
			for _, f := range files {
				name := f.Name()
				body, _ := os.ReadFile(filepath.Join(root, name))
				ours := strings.Contains(name, "istio") || strings.Contains(name, "ambit-cni") || strings.Contains(name, "ztunnel") || strings.HasSuffix(name, ".sock") || name == "kept"
				if ours || strings.Contains(dir, "net.d") && (bytes.Contains(body, []byte("istio")) || bytes.Contains(body, []byte("ambit-cni"))) {
					errs = append(errs, fmt.Errorf("%s still has %s/%s", m.Name, dir, name))
				}
			}
		}
	}
	return errors.Join(errs...)
}

func nothingInAPI(ctx context.Context, sc *Scene) error {
	pods, err := sc.Pods(ctx, sc.NS, "")
	if err != nil {
		return err
	}
	for _, p := range pods {
		if mode := p.Annotations["ambient.istio.io/redirection"]; mode != "" {
			return fmt.Errorf("pod %s still carries redirection=%s", p.Name, mode)
		}
	}
	return sc.absent(ctx, "/apis/security.istio.io/v1", "/apis/networking.istio.io/v1", "/apis/gateway.networking.k8s.io/v1", "/api/v1/namespaces/istio-system", "/apis/rbac.authorization.k8s.io/v1/clusterroles/ambit-istiod",
		"/apis/rbac.authorization.k8s.io/v1/clusterroles/ambit-cni", "/api/v1/namespaces/"+sc.NS+"/configmaps/istio-ca-root-cert")
}

// absent is an error unless the API server has nothing at the paths, soon.
func (sc *Scene) absent(ctx context.Context, paths ...string) error {
	client, err := rest.HTTPClientFor(sc.Reach.Config)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, Soon(ctx, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, sc.Reach.Config.Host+path, nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				return fmt.Errorf("%s answers %s", path, resp.Status)
			}
			return nil
		}))
	}
	return errors.Join(errs...)
}

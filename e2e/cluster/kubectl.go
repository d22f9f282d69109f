package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kubectl runs kubectl against the cluster and returns what it printed; the
// error holds what it complained of. stdin may be empty.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	s, err := c.read()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, "kube"), append([]string{"kubectl"}, args...)...)
	cmd.Env = c.KubectlEnv()
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.String(), nil
}

// KubectlEnv is the environment of a kubectl for this cluster. Its cache is in
// the state directory and goes with the cluster.
func (c *Cluster) KubectlEnv() []string {
	return append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "KUBECACHEDIR="+filepath.Join(c.dir(), "kubectl-cache"))
}

// deployDNS installs CoreDNS, with a copy on each of the first two nodes.
func (c *Cluster) deployDNS(ctx context.Context, s *state) error {
	f := s.plan().facts(controlName)
	f.Replicas = min(2, len(s.Nodes))
	manifest, err := render("coredns.yaml", f)
	if err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, manifest, "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
		return fmt.Errorf("deploy cluster DNS: %w", err)
	}
	return nil
}

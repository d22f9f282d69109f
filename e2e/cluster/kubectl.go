package cluster

import (
	"bytes"
	"context"
	"fmt"
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
	// The cache in the state directory goes with the cluster.
	args = append([]string{"kubectl", "--kubeconfig", c.Kubeconfig(), "--cache-dir", filepath.Join(c.dir(), "kubectl-cache")}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, "kube"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args[5:], " "), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.String(), nil
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

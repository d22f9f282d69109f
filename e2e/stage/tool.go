package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Ambit runs the ambit command on the stage's cluster, as a user would, and
// returns what it printed.
func (s *Stage) Ambit(ctx context.Context, args ...string) (string, error) {
	kubeconfig := s.cfg.Kubeconfig
	if s.Cluster != nil {
		kubeconfig = s.Cluster.Kubeconfig()
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.Checkout, "build", "bin", "ambit"), append(args, "--kubeconfig", kubeconfig)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: build it with `make tools`", err)
	}
	return string(out), fmt.Errorf("ambit %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
}

//go:build e2e

package suite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// The nodes of our own clusters are processes of this machine: what is in the
// kernel for a pod can be looked at.

// netnsOf maps every network namespace that a process of the cluster is in to
// one such process.
func netnsOf(s *stage.Stage) (map[string]int, error) {
	status, err := s.Cluster.Status(context.Background())
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, m := range status.Machines {
		for _, pid := range descendants(m.PID) {
			if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil {
				if _, known := found[ns]; !known {
					found[ns] = pid
				}
			}
		}
	}
	return found, nil
}

// descendants are a process and everything below it.
func descendants(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, t := range tasks {
			b, err := os.ReadFile(t)
			if err != nil {
				continue // it has ended
			}
			for _, f := range strings.Fields(string(b)) {
				var child int
				if _, err := fmt.Sscan(f, &child); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// inNetns runs a program of the host in the network namespace of a process.
func inNetns(ctx context.Context, pid int, program ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	args := append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", pid)}, program...)
	out, err := exec.CommandContext(ctx, "nsenter", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(program, " "), err, out)
	}
	return string(out), nil
}

// netnsWith is a process in the network namespace that has an address.
func netnsWith(ctx context.Context, s *stage.Stage, ip string) (pid int, err error) {
	all, err := netnsOf(s)
	if err != nil {
		return 0, err
	}
	for _, pid := range all {
		out, err := inNetns(ctx, pid, "ip", "-o", "addr")
		if err == nil && strings.Contains(out, " "+ip+"/") {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("none of %d network namespaces has the address %s", len(all), ip)
}

// traces says what of the mesh is in a network namespace; empty is nothing.
func traces(ctx context.Context, pid int) (string, error) {
	rules, err := inNetns(ctx, pid, "nft", "list", "tables")
	if err != nil {
		return "", err
	}
	var found []string
	for line := range strings.Lines(rules) {
		if strings.Contains(line, "istio") || strings.Contains(line, "ambit") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	for _, family := range []string{"-4", "-6"} {
		policy, err := inNetns(ctx, pid, "ip", family, "rule")
		if err != nil {
			continue // the family is off
		}
		for line := range strings.Lines(policy) {
			if strings.Contains(line, "0x111") {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(found, "; "), nil
}

// untouched is an error if a pod's network namespace holds anything of ours.
// The namespace of a pod on the host network is the node's, which may hold the
// rule that lets probes through.
func (sc *Scene) untouched(ctx context.Context, p *corev1.Pod) error {
	if sc.Cluster == nil || p.Spec.HostNetwork {
		return nil
	}
	pid, err := netnsWith(ctx, sc.Stage, p.Status.PodIP)
	if err != nil {
		return err
	}
	found, err := traces(ctx, pid)
	if err != nil {
		return err
	}
	if found != "" {
		return fmt.Errorf("the network namespace of %s/%s holds %s", p.Namespace, p.Name, found)
	}
	return nil
}

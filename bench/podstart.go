package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

const (
	podStartName = "podstart.added"
	captureName  = "capture.seconds"
	// podStartGoal is issue 4's, in milliseconds.
	podStartGoal = 50
	// capturedPods is how many running pods are captured at once.
	capturedPods = 20
)

// podStart measures what the mesh adds to a pod's start, and how long it takes
// to capture pods that run: the real plugin as a program of its own, the real
// node agent and the real ztunnel, with network namespaces for pods. Only the
// API server is none.
func podStart(ctx context.Context, cfg *Config) (rows []Row, err error) {
	if !cfg.wants(podStartName, captureName) {
		return nil, nil
	}
	h, err := newHost(ctx)
	if err != nil {
		return nil, err
	}
	defer h.close()
	for _, m := range []struct {
		name    string
		measure func(context.Context, *Config) (Row, error)
	}{{podStartName, h.starts}, {captureName, h.captures}} {
		if !cfg.wants(m.name) {
			continue
		}
		r, err := m.measure(ctx, cfg)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", m.name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// starts runs the plugin for pods of the mesh and, in turn, for pods that it
// lets pass without asking. Without a mesh it is not run at all, so all of its
// time is added.
func (h *host) starts(ctx context.Context, cfg *Config) (Row, error) {
	var inside, outside []float64
	for range 10 * cfg.Rounds {
		for namespace, took := range map[string]*[]float64{"shop": &inside, "kube-system": &outside} {
			p, err := h.pod(ctx, namespace, false)
			if err != nil {
				return Row{}, err
			}
			began := time.Now()
			if err := h.add(ctx, p); err != nil {
				return Row{}, err
			}
			*took = append(*took, float64(time.Since(began))/float64(time.Millisecond))
			if present, err := rules.Present(p.ns); err != nil || present != (namespace == "shop") {
				return Row{}, fmt.Errorf("rules in a pod of %s: %v (%w)", namespace, present, err)
			}
		}
	}
	slices.Sort(inside)
	r := measured(podStartName, "ms", inside, nil, "", Lower, podStartGoal)
	r.Note = fmt.Sprintf("plugin, agent, rules and ztunnel's listeners; 99%% within %.1f; a pod of an excluded namespace: %.1f, the plugin's own start", percentile(inside, 0.99), median(outside))
	return r, nil
}

// add runs the plugin as the container runtime does.
func (h *host) add(ctx context.Context, p *benchPod) error {
	conf, err := json.Marshal(map[string]any{
		"type": "ambit-cni", "name": "net", "cniVersion": "1.0.0", "agentSocket": h.path("run", "pluginevent.sock"), "excludeNamespaces": []string{"kube-system"},
		"prevResult": map[string]any{"cniVersion": "1.0.0", "ips": []any{map[string]any{"address": p.ip.String() + "/32"}}},
	})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, h.plugin)
	cmd.Stdin = bytes.NewReader(conf)
	cmd.Env = []string{
		"CNI_COMMAND=ADD", "CNI_CONTAINERID=sandbox-" + p.name, "CNI_NETNS=" + spacePath(p.ns), "CNI_IFNAME=eth0", "CNI_PATH=/none",
		fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", p.namespace, p.name, p.uid),
	}
	if out, err := cmd.Output(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// captures labels a namespace with running pods, and waits until each has its
// rules and says so; then it takes the label away and waits until none has.
func (h *host) captures(ctx context.Context, cfg *Config) (Row, error) {
	var pods []*benchPod
	for range capturedPods {
		p, err := h.pod(ctx, "later", true)
		if err != nil {
			return Row{}, err
		}
		pods = append(pods, p)
	}
	var took []float64
	for range cfg.Rounds {
		began := time.Now()
		if err := h.label(ctx, "later", "ambient"); err != nil {
			return Row{}, err
		}
		if err := h.all(ctx, pods, true); err != nil {
			return Row{}, err
		}
		took = append(took, time.Since(began).Seconds())
		if err := h.label(ctx, "later", "none"); err != nil {
			return Row{}, err
		}
		if err := h.all(ctx, pods, false); err != nil {
			return Row{}, err
		}
	}
	r := measured(captureName, "s", took, nil, "", Lower, 0)
	r.Note = fmt.Sprintf("a namespace is labelled → the last of %d running pods on a node is captured and says so", capturedPods)
	return r, nil
}

// all waits until every pod is captured, or none.
func (h *host) all(ctx context.Context, pods []*benchPod, captured bool) error {
	for _, p := range pods {
		err := until(ctx, func() bool {
			present, err := rules.Present(p.ns)
			return err == nil && present == captured && (h.annotation(ctx, p) == enrol.Enabled) == captured
		})
		if err != nil {
			return fmt.Errorf("pod %s: captured is not %v: %w", p.name, captured, err)
		}
	}
	return nil
}

func spacePath(ns *linux.NetNS) string { return fmt.Sprintf("/proc/%d/fd/%d", pid, ns.File().Fd()) }

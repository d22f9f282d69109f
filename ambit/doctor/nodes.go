package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/ambit/reach"
)

// Node is one node.
type Node struct {
	Name, Kernel, OS, Runtime string
	Ready                     bool
	// Agent and Ztunnel are how the parts are that every node has.
	Agent, Ztunnel Presence
}

// judgeNodes wants Linux with nftables as we use it (kernel 5.4) and says what
// an older kernel than 5.14 costs.
func judgeNodes(nodes []Node) []Finding {
	var all []Finding
	for _, n := range nodes {
		check := "node " + n.Name
		major, minor, ok := leadingVersion(n.Kernel)
		switch {
		case n.OS != "linux":
			all = append(all, Finding{Warn, check, "runs " + n.OS, "its pods cannot be captured; schedule the mesh's pods on Linux nodes"})
		case !n.Ready:
			all = append(all, Finding{Fail, check, "is not Ready", "kubectl describe node " + n.Name})
		case !ok:
			all = append(all, Finding{Warn, check, "kernel " + n.Kernel + " could not be read", "check that it is 5.4 or newer"})
		case older(major, minor, 5, 4):
			all = append(all, Finding{Fail, check, "kernel " + n.Kernel + " is too old", "5.4 or newer is needed for nftables redirection of both address families"})
		case older(major, minor, 5, 14):
			all = append(all, Finding{Warn, check, "kernel " + n.Kernel + " cannot hand over queued connections", "from 5.14 on, replacing ztunnel loses no new connection"})
		default:
			all = append(all, Finding{Level: OK, Check: check, Detail: "kernel " + n.Kernel + ", " + n.Runtime})
		}
	}
	if len(nodes) == 0 {
		all = append(all, Finding{Fail, "nodes", "there is none", "join a node"})
	}
	return all
}

func older(major, minor, wantMajor, wantMinor int) bool {
	return major < wantMajor || major == wantMajor && minor < wantMinor
}

// leadingVersion reads "v1.37.2" or "6.1.0-18-amd64".
func leadingVersion(s string) (major, minor int, ok bool) {
	first, rest, ok1 := strings.Cut(strings.TrimPrefix(s, "v"), ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(rest[:end])
	return major, minor, ok1 && err1 == nil && err2 == nil
}

func gatherNodes(ctx context.Context, c *reach.Cluster, f *Facts) error {
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	agents, err := presences(ctx, c, agentLabel)
	if err != nil {
		return err
	}
	ztunnels, err := presences(ctx, c, ztunnelLabel)
	if err != nil {
		return err
	}
	for _, n := range nodes.Items {
		info := n.Status.NodeInfo
		node := Node{Name: n.Name, Kernel: info.KernelVersion, OS: info.OperatingSystem, Runtime: info.ContainerRuntimeVersion}
		node.Agent, node.Ztunnel = agents[n.Name], ztunnels[n.Name]
		for _, cond := range n.Status.Conditions {
			if cond.Type == corev1.NodeReady {
				node.Ready = cond.Status == corev1.ConditionTrue
			}
		}
		f.Nodes = append(f.Nodes, node)
	}
	return nil
}

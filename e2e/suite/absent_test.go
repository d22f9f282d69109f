//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/manifests"
)

// TestWithoutTheNodeAgentEverythingKnownKeepsWorking: no agent for a long time.
// Connections old and new go on; one pod is deleted meanwhile, and made again
// under the same name. When the agents are back nothing is left of the first,
// the second is in the mesh, and what the node holds is as much as before.
func TestWithoutTheNodeAgentEverythingKnownKeepsWorking(t *testing.T) {
	onOurNodes(t)
	away := Lasts(20*time.Second, 5*time.Minute)
	HoldFor(t, mesh, away, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		again := Pod{Name: "again", Node: 1}
		if err := sc.Start(ctx, again); err != nil {
			return err
		}
		if err := sc.encryptedBetween(ctx, "again", "server"); err != nil {
			return err
		}
		before, err := sc.holdings(ctx)
		if err != nil {
			return err
		}
		if err := sc.agentAway(ctx); err != nil {
			return err
		}
		load := sc.Begin(ctx, "client", "load", "--rate", "50", "--duration", away.String(), url(hosts[0], httpPort))
		held := sc.Begin(ctx, "client", "hold", "--duration", away.String(), address(hosts[0], tcpPort))
		if err := errors.Join(sc.gone(ctx, "again"), sc.Create(ctx, again)); err != nil {
			return err
		}
		if err := Soon(ctx, func(ctx context.Context) error { return sc.waitsForAgent(ctx, sc.NS+"/again") }); err != nil {
			return err
		}
		s, err := load.End()
		if err := errors.Join(err, AllOK(s), held.EndOK()); err != nil {
			return fmt.Errorf("while the agents are away: %w", err)
		}
		sc.Figure("agents away", "%s, 0 of %d new connections failed, one connection held throughout", away, s.Attempts)
		if err := sc.agentBack(ctx); err != nil {
			return err
		}
		if err := errors.Join(sc.BecomesReady(ctx, sc.NS, "again"), sc.encryptedBetween(ctx, "again", "server")); err != nil {
			return err
		}
		return Soon(ctx, func(ctx context.Context) error { return sc.asBefore(ctx, before) })
	})
}

// TestPodsThatComeAndGoLeaveNothing: after churn there are as many rules, open
// descriptors and network namespaces as before.
func TestPodsThatComeAndGoLeaveNothing(t *testing.T) {
	onOurNodes(t)
	rounds := Times(2, 10)
	HoldFor(t, mesh, time.Duration(rounds)*time.Minute, func(ctx context.Context, sc *Scene) error {
		if _, err := sc.inMesh(ctx, true); err != nil {
			return err
		}
		before, err := sc.holdings(ctx)
		if err != nil {
			return err
		}
		for range rounds {
			var pods []Pod
			for i := range 6 {
				pods = append(pods, Pod{Name: fmt.Sprintf("churn-%d", i), Node: 1 + i%2})
			}
			if err := sc.Start(ctx, pods...); err != nil {
				return err
			}
			if err := sc.encryptedBetween(ctx, "churn-0", "server"); err != nil {
				return err
			}
			for _, p := range pods {
				if err := sc.gone(ctx, p.Name); err != nil {
					return err
				}
			}
		}
		if err := Soon(ctx, func(ctx context.Context) error { return sc.asBefore(ctx, before) }); err != nil {
			return err
		}
		after, err := sc.holdings(ctx)
		sc.Figure("held after the churn of 6 pods", "%d times: before %s; after %s", rounds, before, after)
		return err
	})
}

// holdings is what the mesh holds on all nodes.
type holdings struct {
	// Captured are the network namespaces with rules of ours.
	Captured int
	// Agents and Proxies are the descriptors of node agents and node proxies,
	// and how many of them are network namespaces.
	Agents, Proxies, AgentNetNS, ProxyNetNS int
	// Tunnels and Goroutines are those of node proxies.
	Tunnels, Goroutines int
}

func (h holdings) String() string {
	return fmt.Sprintf("%d captured pods, descriptors of agents %d (%d namespaces), of node proxies %d (%d namespaces), their tunnels %d, their goroutines %d",
		h.Captured, h.Agents, h.AgentNetNS, h.Proxies, h.ProxyNetNS, h.Tunnels, h.Goroutines)
}

func (sc *Scene) holdings(ctx context.Context) (h holdings, err error) {
	all, err := netnsOf(sc.Stage)
	if err != nil {
		return h, err
	}
	for _, pid := range all {
		if out, err := inNetns(ctx, pid, "nft", "list", "tables"); err == nil && strings.Contains(out, "istio-ambient-guard") {
			h.Captured++
		}
	}
	status, err := sc.Cluster.Status(ctx)
	if err != nil {
		return h, err
	}
	for _, m := range status.Machines {
		for _, pid := range descendants(m.PID) {
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			switch filepath.Base(exe) {
			case "ambit-cni-agent":
				open, spaces := descriptorsOf(pid)
				h.Agents, h.AgentNetNS = h.Agents+open, h.AgentNetNS+spaces
			case "ztunnel":
				open, spaces := descriptorsOf(pid)
				h.Proxies, h.ProxyNetNS = h.Proxies+open, h.ProxyNetNS+spaces
			}
		}
	}
	if h.Agents == 0 || h.Proxies == 0 {
		return h, fmt.Errorf("no node agent or no node proxy is found: %s", h)
	}
	return h, sc.proxiesTell(ctx, map[string]*int{"ambit_tunnels_open": &h.Tunnels, "go_goroutines": &h.Goroutines})
}

// proxiesTell sums gauges of all node proxies.
func (sc *Scene) proxiesTell(ctx context.Context, gauges map[string]*int) error {
	pods, err := sc.Reach.RunningPods(ctx, manifests.Namespace, "app=ztunnel", "")
	if err != nil {
		return err
	}
	for _, p := range pods {
		text, err := sc.Reach.Get(ctx, manifests.Namespace, p.Name, 15020, "/metrics")
		if err != nil {
			return err
		}
		told := 0
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if sum := gauges[name]; sum != nil {
				n, err := strconv.Atoi(value)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", name, p.Name, err)
				}
				*sum += n
				told++
			}
		}
		if told != len(gauges) {
			return fmt.Errorf("%s tells %d of %d gauges", p.Name, told, len(gauges))
		}
	}
	return nil
}

// descriptorsOf counts what a process has open. A namespace may have been
// opened by any path: it is known by the file system that it is of.
func descriptorsOf(pid int) (open, spaces int) {
	var any, one unix.Statfs_t
	if err := unix.Statfs("/proc/self/ns/net", &any); err != nil {
		return 0, 0
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if unix.Statfs(fd, &one) == nil && one.Type == any.Type {
			spaces++
		}
	}
	return len(fds), spaces
}

// asBefore is an error if more is held than before. Connections come and go:
// some descriptors and goroutines more are none that stay.
func (sc *Scene) asBefore(ctx context.Context, before holdings) error {
	now, err := sc.holdings(ctx)
	const slack, goroutines = 12, 60 // a pod has about 20
	if err == nil && (now.Captured > before.Captured || now.AgentNetNS > before.AgentNetNS || now.ProxyNetNS > before.ProxyNetNS ||
		now.Tunnels > before.Tunnels || now.Goroutines > before.Goroutines+goroutines ||
		now.Agents > before.Agents+slack || now.Proxies > before.Proxies+slack) {
		err = fmt.Errorf("held are %s; before %s", now, before)
	}
	return err
}

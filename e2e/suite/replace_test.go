//go:build e2e

package suite

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/e2e/stage"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/manifests"
)

// TestReplacingTheNodeProxiesUnderLoadLosesNothing: 200 requests a second, each
// on its own connection, through rollouts of the node proxies, one after the
// other. What had to end when the time to drain was over is counted, and each
// has its record.
func TestReplacingTheNodeProxiesUnderLoadLosesNothing(t *testing.T) {
	rollouts := Times(2, 5)
	lasts := time.Duration(rollouts) * rolloutLasts
	HoldFor(t, mesh, lasts, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		if err := sc.Service(ctx, "server", "server"); err != nil {
			return err
		}
		load := sc.Begin(ctx, "client", "load", "--rate", "200", "--timeout", "10s", "--duration", lasts.String(), url("server."+sc.NS, 80))
		if err := sc.steady(ctx, []*running{load}, 2*time.Second); err != nil {
			return err
		}
		for n := range rollouts {
			// Longer than any drain, so that it is cut by both its proxies.
			held := sc.Begin(ctx, "client", "hold", "--duration", (2 * rolloutLasts).String(), address(hosts[0], tcpPort))
			// Shorter than the time that a drain gives, so that it ends by itself.
			brief := sc.Begin(ctx, "client", "hold", "--duration", "15s", address(hosts[0], tcpPort))
			began := time.Now()
			told, err := sc.replaceZtunnels(ctx)
			if err != nil {
				return err
			}
			if err := brief.EndOK(); err != nil {
				return fmt.Errorf("rollout %d: %w", n+1, err)
			}
			if load.over() {
				_, err := load.End()
				return fmt.Errorf("the load ended before rollout %d did: %w", n+1, err)
			}
			if told.cut != told.records || told.cut == 0 {
				return fmt.Errorf("rollout %d: the proxies say that they cut %d connections, of which %d have records; one was held", n+1, told.cut, told.records)
			}
			if _, err := held.End(); err != nil {
				return err
			}
			sc.Figure(fmt.Sprintf("rollout %d", n+1), "%s; %d connections cut after their drain, %d records", time.Since(began).Round(time.Second), told.cut, told.records)
		}
		s, err := load.End()
		if err == nil {
			err = AllOK(s)
		}
		sc.Figure("new connections", "%d failed of %d, p99 %s", s.Failed, s.Attempts, s.Latency.P99)
		return err
	})
}

// rolloutLasts bounds one rollout: every node's proxy drains for 25 s.
const rolloutLasts = 45 * time.Second

// ending is what proxies said at their end.
type ending struct{ cut, records int }

// replaceZtunnels rolls the node proxies out anew, and gives what the old ones
// said from then on.
func (sc *Scene) replaceZtunnels(ctx context.Context) (ending, error) {
	pods, err := sc.Pods(ctx, manifests.Namespace, "app=ztunnel")
	if err != nil {
		return ending{}, err
	}
	old := map[types.UID]bool{}
	var all []*tail
	for _, p := range pods {
		old[p.UID] = true
		one, err := sc.follow(ctx, p.Name, `"cut":`)
		if err != nil {
			return ending{}, err
		}
		all = append(all, one)
	}
	patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"ambit.dev/restarted":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	if _, err := sc.Reach.Client.AppsV1().DaemonSets(manifests.Namespace).Patch(ctx, "ztunnel", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return ending{}, err
	}
	var e ending
	for _, one := range all {
		lines, err := one.end(ctx)
		if err != nil {
			return e, err
		}
		for _, l := range lines {
			if l["component"] == "access" && l["cut"] == "drain" {
				e.records++
			} else if n, ok := l["cut"].(float64); ok && l["msg"] == "drained" {
				e.cut += int(n)
			}
		}
	}
	return e, sc.ztunnelsReady(ctx, old)
}

// ztunnelsReady waits until every node has a ready proxy that is none of old.
func (sc *Scene) ztunnelsReady(ctx context.Context, old map[types.UID]bool) error {
	return stage.Within(ctx, 2*time.Minute, func(ctx context.Context) error {
		list, err := sc.Reach.Client.CoreV1().Pods(manifests.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=ztunnel"})
		if err != nil {
			return err
		}
		ds, err := sc.Reach.Client.AppsV1().DaemonSets(manifests.Namespace).Get(ctx, "ztunnel", metav1.GetOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range list.Items {
			if old[p.UID] {
				return fmt.Errorf("%s is still there", p.Name)
			}
			if stage.Ready(&p) {
				ready++
			}
		}
		if want := int(ds.Status.DesiredNumberScheduled); ready < want {
			return fmt.Errorf("%d of %d node proxies are ready", ready, want)
		}
		return nil
	})
}

// tail follows the log of a node proxy to its end, and keeps some of its lines.
type tail struct {
	done  chan struct{}
	mu    sync.Mutex
	lines []map[string]any
}

// follow keeps the lines that contain what is marked. Only those are parsed: a log
// of thousands of lines a second would take the processor from what is tested.
func (sc *Scene) follow(ctx context.Context, pod, marked string) (*tail, error) {
	now := metav1.Now()
	stream, err := sc.Reach.Client.CoreV1().Pods(manifests.Namespace).GetLogs(pod, &corev1.PodLogOptions{Container: "istio-proxy", Follow: true, SinceTime: &now}).Stream(ctx)
	if err != nil {
		return nil, err
	}
	one := &tail{done: make(chan struct{})}
	go func() {
		defer close(one.done)
		defer stream.Close()
		s := bufio.NewScanner(stream)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			var m map[string]any
			if bytes.Contains(s.Bytes(), []byte(marked)) && json.Unmarshal(s.Bytes(), &m) == nil {
				one.mu.Lock()
				one.lines = append(one.lines, m)
				one.mu.Unlock()
			}
		}
	}()
	return one, nil
}

// end waits for the end of the log and gives the lines that were kept.
func (o *tail) end(ctx context.Context) ([]map[string]any, error) {
	select {
	case <-o.done:
	case <-time.After(2 * time.Minute):
		return nil, errors.New("the log of a node proxy that is replaced does not end")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lines, nil
}

// TestAKilledNodeProxyIsBackAndTellsWhatItsEndCut: the connections that a kill
// cut are counted by the next process, each with its record, and new ones from
// other nodes wait for it.
func TestAKilledNodeProxyIsBackAndTellsWhatItsEndCut(t *testing.T) {
	c := onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		const held = 20
		var holds []*running
		for range held {
			holds = append(holds, sc.Begin(ctx, "client", "hold", "--duration", "60s", "--timeout", "2s", address(hosts[0], tcpPort)))
		}
		load := sc.Begin(ctx, "client", "load", "--rate", "50", "--timeout", "10s", "--duration", "15s", url(hosts[0], httpPort))
		if err := sc.steady(ctx, append(holds, load), 3*time.Second); err != nil {
			return err
		}
		p, err := sc.Stage.Pod(ctx, sc.NS, "server")
		if err != nil {
			return err
		}
		node := p.Spec.NodeName
		status, err := c.Status(ctx)
		if err != nil {
			return err
		}
		sc.Cuts()
		killed := time.Now()
		n := 0
		for _, m := range status.Machines {
			if m.Name != node {
				continue
			}
			for _, pid := range descendants(m.PID) {
				if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && filepath.Base(exe) == "ztunnel" {
					n++
					err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
				}
			}
		}
		if n != 1 {
			return fmt.Errorf("killed %d node proxies on %s, want one", n, node)
		}
		if err := Soon(ctx, func(ctx context.Context) error {
			return sc.Works(ctx, "client", "get", "--timeout", "1s", url(hosts[0], httpPort))
		}); err != nil {
			return err
		}
		sc.Figure("back after a kill", "%s", time.Since(killed).Round(100*time.Millisecond))
		cut, err := sc.tellsOfCrash(ctx, node, held, killed)
		if err != nil {
			return err
		}
		s, err := load.End()
		if err != nil {
			return err
		}
		sc.Figure("new connections to a node whose proxy was killed", "%d failed of %d, max %s", s.Failed, s.Attempts, s.Latency.Max)
		if s.Failed > cut-held {
			return fmt.Errorf("%d new connections failed, more than the %d that were open then: %v", s.Failed, cut-held, s.Failures)
		}
		for _, h := range holds {
			if _, err := h.End(); err != nil {
				return err
			}
		}
		return nil
	})
}

// tellsOfCrash gives how many connections of the scene the proxy of a node says
// that its predecessor's end cut; of all of them its log, its records and its
// metric must agree.
func (sc *Scene) tellsOfCrash(ctx context.Context, node string, least int, since time.Time) (cut int, err error) {
	pods, err := sc.Reach.RunningPods(ctx, manifests.Namespace, "app=ztunnel", node)
	if err != nil {
		return 0, err
	}
	if len(pods) != 1 {
		return 0, fmt.Errorf("%d node proxies on %s", len(pods), node)
	}
	err = Soon(ctx, func(ctx context.Context) error {
		text, err := sc.Logs(ctx, manifests.Namespace, pods[0].Name, "istio-proxy", since)
		if err != nil {
			return err
		}
		records, ours, counted := 0, 0, 0.0
		for line := range strings.Lines(text) {
			var m map[string]any
			if json.Unmarshal([]byte(line), &m) != nil {
				continue
			}
			if m["component"] == "access" && m["cut"] == "crash" {
				if records++; m[telemetry.KeyDestinationNamespace] == sc.NS {
					ours++
				}
			} else if n, ok := m["cut"].(float64); ok && m["msg"] == "an earlier process ended without draining" {
				counted = n
			}
		}
		metrics, err := sc.Reach.Get(ctx, manifests.Namespace, pods[0].Name, 15020, "/metrics")
		if err != nil {
			return err
		}
		inMetric := 0
		for line := range strings.Lines(string(metrics)) {
			var n int
			if strings.HasPrefix(line, "ambit_tcp_connections_cut_total{") && strings.Contains(line, `cause="crash"`) {
				fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n)
				inMetric += n
			}
		}
		if ours < least || float64(records) != counted || records != inMetric {
			return fmt.Errorf("the next process recorded %d cut connections (%d of this test), logged %v and counts %d, want all equal and at least %d of this test", records, ours, counted, inMetric, least)
		}
		sc.Figure("cut by a kill", "%d connections, %d records", inMetric, records)
		cut = ours
		return nil
	})
	return cut, err
}

// TestANodeProxyStartedWithoutIstiodGoesOnAsBefore: with what was kept on the
// node; who was denied stays denied.
func TestANodeProxyStartedWithoutIstiodGoesOnAsBefore(t *testing.T) {
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "denied", Node: 1}); err != nil {
			return err
		}
		deny := sc.authz("not-denied", "  action: DENY\n  rules: [{from: [{source: {principals: ["+Principal(sc.NS, "denied")+"]}}]}]\n")
		if err := sc.Apply(ctx, deny); err != nil {
			return err
		}
		refused := func(ctx context.Context) error {
			return sc.Fails(ctx, "denied", "get", "--count", "5", "--timeout", "3s", url(hosts[0], httpPort))
		}
		works := func(ctx context.Context) error {
			return sc.Works(ctx, "client", "get", "--count", "20", url(hosts[0], httpPort))
		}
		if err := errors.Join(Soon(ctx, refused), works(ctx)); err != nil {
			return err
		}
		if err := sc.scaleIstiod(ctx, 0); err != nil {
			return err
		}
		sc.Undo(func(ctx context.Context) error { return sc.scaleIstiod(ctx, 1) })
		began := time.Now()
		if _, err := sc.replaceZtunnels(ctx); err != nil {
			return fmt.Errorf("without istiod: %w", err)
		}
		if err := errors.Join(works(ctx), refused(ctx), sc.encryptedBetween(ctx, "client", "server")); err != nil {
			return fmt.Errorf("with new proxies and without istiod: %w", err)
		}
		sc.Figure("new proxies without istiod", "serve after %s", time.Since(began).Round(time.Second))
		if out, _ := ambit(ctx, "status"); !strings.Contains(out, "serves what its node had kept") {
			return fmt.Errorf("ambit status does not tell that the state is kept: %q", out)
		}
		if err := errors.Join(sc.Delete(ctx, deny), sc.scaleIstiod(ctx, 1)); err != nil {
			return err
		}
		return Soon(ctx, func(ctx context.Context) error {
			return sc.Works(ctx, "denied", "get", "--timeout", "3s", url(hosts[0], httpPort))
		})
	})
}

// TestAPodThatTakesTheProxysPortHarmsOnlyItself: the node stays ready, its
// other pods are served, and the pod is named.
func TestAPodThatTakesTheProxysPortHarmsOnlyItself(t *testing.T) {
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, false); err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "squatter", Node: 2, Args: []string{"serve", "--tcp", "9000,15008"}}); err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "server", Node: 2}, Pod{Name: "client", Node: 1}); err != nil {
			return err
		}
		if err := sc.Label(ctx, sc.NS, modeLabel, "ambient"); err != nil {
			return err
		}
		if err := Soon(ctx, func(ctx context.Context) error { return sc.encryptedBetween(ctx, "client", "server") }); err != nil {
			return err
		}
		if err := sc.ztunnelsReady(ctx, nil); err != nil {
			return err
		}
		return Soon(ctx, func(ctx context.Context) error {
			dumps, err := sc.Dumps(ctx)
			if err != nil {
				return err
			}
			for _, d := range dumps {
				for _, s := range d.WorkloadState {
					if s.Info.Name == "squatter" && s.State == "Pending" && strings.Contains(s.Error, "15008") {
						return nil
					}
				}
			}
			return errors.New("no proxy says that it cannot serve the pod")
		})
	})
}

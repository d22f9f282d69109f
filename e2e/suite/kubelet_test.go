//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

func strict(namespace string) string {
	return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: %s}\nspec:\n  mtls: {mode: STRICT}\n", namespace)
}

// TestProbesOfEveryKindWorkUnderSTRICT: the kubelet is not in the mesh and
// must still reach what it probes.
func TestProbesOfEveryKindWorkUnderSTRICT(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, true); err != nil {
			return err
		}
		if err := sc.Apply(ctx, strict(sc.NS)); err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "client", Ready: ExecProbe("/echo", "lookup", "localhost")}); err != nil {
			return err
		}
		probes := map[string]*corev1.Probe{
			"http": HTTPProbe(httpPort), "tcp": TCPProbe(tcpPort), "grpc": GRPCProbe(grpcPort), "exec": ExecProbe("/echo", "tcp", address("127.0.0.1", tcpPort)),
		}
		var pods []Pod
		for kind, probe := range probes {
			alive := probe.DeepCopy()
			alive.FailureThreshold = 2
			pods = append(pods, Pod{Name: kind, Node: 1 + len(pods)%2, Ready: probe, Alive: alive})
		}
		if err := sc.Start(ctx, pods...); err != nil {
			return err
		}
		if err := sc.strictIsOn(ctx, "http"); err != nil {
			return err
		}
		return sc.stayReady(ctx, 8*time.Second)
	})
}

// strictIsOn proves that the test tests something: plaintext is refused.
func (sc *Scene) strictIsOn(ctx context.Context, pod string) error {
	outside, err := sc.Another(ctx, "out", false)
	if err != nil {
		return err
	}
	if err := sc.Start(ctx, Pod{Name: "outsider", Namespace: outside}); err != nil {
		return err
	}
	v4, v6, err := sc.IPs(ctx, pod)
	if err != nil {
		return err
	}
	host := v4 + v6
	if v4 != "" {
		host = v4
	}
	return Soon(ctx, func(ctx context.Context) error {
		return sc.Fails(ctx, outside+"/outsider", "get", "--timeout", "2s", url(host, httpPort))
	})
}

// stayReady watches the scene's pods for a while: none may become unready or
// restart. It is the one place that waits for time to pass, because what it
// looks for is that nothing happens.
func (sc *Scene) stayReady(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for ticker := time.NewTicker(time.Second); ; {
		select {
		case <-ctx.Done():
			ticker.Stop()
			return nil
		case <-ticker.C:
		}
		pods, err := sc.Pods(context.WithoutCancel(ctx), sc.NS, "")
		if err != nil {
			return err
		}
		for _, p := range pods {
			if restarts := p.Status.ContainerStatuses[0].RestartCount; restarts > 0 || !stage.Ready(&p) {
				return fmt.Errorf("pod %s: ready %v, %d restarts", p.Name, stage.Ready(&p), restarts)
			}
		}
	}
}

// TestAJobEnds: nothing of the mesh keeps a pod running after its program.
func TestAJobEnds(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, true); err != nil {
			return err
		}
		if err := errors.Join(sc.Service(ctx, "server", "server"), sc.Start(ctx, Pod{Name: "server", Node: 2})); err != nil {
			return err
		}
		if err := sc.Create(ctx, Pod{Name: "job", Node: 1, Once: true, Args: []string{"get", "--count", "5", url("server."+sc.NS, 80)}}); err != nil {
			return err
		}
		err := stage.Within(ctx, time.Minute, func(ctx context.Context) error {
			p, err := sc.Stage.Pod(ctx, sc.NS, "job")
			switch {
			case err != nil:
				return err
			case p.Status.Phase != corev1.PodSucceeded:
				return fmt.Errorf("the job's pod is %s", p.Status.Phase)
			}
			return nil
		})
		if err != nil {
			text, logErr := sc.Logs(ctx, sc.NS, "job", "app", sc.Began)
			return fmt.Errorf("%w; it printed %s (%v)", err, strings.TrimSpace(text), logErr)
		}
		return sc.recorded(ctx, Identity(sc.NS, "job"), Identity(sc.NS, "server"))
	})
}

// TestHostNetworkAndUnlabelledPodsAreUntouched.
func TestHostNetworkAndUnlabelledPodsAreUntouched(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, true); err != nil {
			return err
		}
		outside, err := sc.Another(ctx, "out", false)
		if err != nil {
			return err
		}
		onHost := Pod{Name: "on-host", Node: 1, HostNetwork: true, Args: []string{"serve", "--http", "18080", "--tcp", "18081", "--udp", "0", "--first", "0", "--bulk", "0", "--grpc", "0"}, Ready: HTTPProbe(18080)}
		optedOut := Pod{Name: "opted-out", Node: 2, Labels: map[string]string{modeLabel: "none"}}
		if err := sc.Start(ctx, onHost, optedOut, Pod{Name: "inside", Node: 2}, Pod{Name: "outside", Namespace: outside, Node: 1}); err != nil {
			return err
		}
		for _, name := range []string{sc.NS + "/on-host", sc.NS + "/opted-out", outside + "/outside"} {
			ns, pod, _ := strings.Cut(name, "/")
			p, err := sc.Stage.Pod(ctx, ns, pod)
			if err != nil {
				return err
			}
			if mode, ok := p.Annotations["ambient.istio.io/redirection"]; ok {
				return fmt.Errorf("pod %s carries redirection=%s", name, mode)
			}
			if err := sc.untouched(ctx, p); err != nil {
				return err
			}
		}
		return sc.talkAcross(ctx, outside)
	})
}

// talkAcross: pods outside of the mesh reach those inside, and the other way.
func (sc *Scene) talkAcross(ctx context.Context, outside string) error {
	inside, _, err := sc.IPs(ctx, "inside")
	if err != nil {
		return err
	}
	out, err := sc.Stage.Pod(ctx, outside, "outside")
	if err != nil {
		return err
	}
	host, err := sc.Stage.Pod(ctx, sc.NS, "on-host")
	if err != nil {
		return err
	}
	return errors.Join(
		sc.Works(ctx, outside+"/outside", "get", url(inside, httpPort)),
		sc.Works(ctx, "on-host", "get", url(inside, httpPort)),
		sc.Works(ctx, "inside", "get", url(out.Status.PodIP, httpPort)),
		sc.Works(ctx, "inside", "get", url(host.Status.PodIP, 18080)),
		sc.Works(ctx, "inside", "udp", address(out.Status.PodIP, 9000)),
	)
}

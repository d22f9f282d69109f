//go:build e2e

package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/command"
	"github.com/ambit-mesh/ambit/e2e/stage"
	"github.com/ambit-mesh/ambit/manifests"
)

// TestOneOfTwoReplicasOfIstiodIsKilledAndNothingIsMissed: first the process that
// serves the proxies, then its pod for good; under load, while policies change and
// a namespace is released. `ambit apply --wait` returns when its policy decides,
// neither earlier nor never; certificates are taken back as with one.
func TestOneOfTwoReplicasOfIstiodIsKilledAndNothingIsMissed(t *testing.T) {
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		left, err := sc.Another(ctx, "left", true)
		if err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "denied", Node: 1}, Pod{Name: "guest", Namespace: left, Node: 2}); err != nil {
			return err
		}
		if err := sc.PodsBecome(ctx, left, "captured", stage.Enrolled); err != nil {
			return err
		}
		guest, err := sc.Stage.Pod(ctx, left, "guest")
		if err != nil {
			return err
		}
		if err := sc.twoReplicas(ctx); err != nil {
			return err
		}
		const lasts = "3m" // or until they are stopped
		clients := []*running{
			sc.Begin(ctx, "client", "load", "--rate", "100", "--timeout", "10s", "--duration", lasts, url(hosts[0], httpPort)),
			sc.Begin(ctx, "client", "load", "--rate", "100", "--timeout", "10s", "--duration", lasts, url(guest.Status.PodIP, httpPort)),
			sc.Begin(ctx, "client", "hold", "--connections", "20", "--every", "2s", "--duration", lasts, address(hosts[0], tcpPort)),
		}
		if err := sc.steady(ctx, clients, 2*time.Second); err != nil {
			return err
		}
		if err := sc.changes(ctx, hosts[0]); err != nil {
			return fmt.Errorf("with two replicas: %w", err)
		}
		for _, end := range []struct {
			what string
			do   func(context.Context, string) error
			then func(context.Context) error
		}{
			{"killed", sc.killIstiod, func(ctx context.Context) error { return sc.releases(ctx, left, guest.Status.PodIP) }},
			{"deleted at once", sc.deleteIstiod, func(ctx context.Context) error { return sc.revokedIsCut(ctx, hosts[0]) }},
		} {
			victim, err := sc.whoServes(ctx)
			if err != nil {
				return err
			}
			ended := time.Now()
			if err := end.do(ctx, victim); err != nil {
				return err
			}
			if err := sc.changes(ctx, hosts[0]); err != nil {
				return fmt.Errorf("after %s was %s: %w", victim, end.what, err)
			}
			sc.Figure("a policy applied and deleted after the replica that served was "+end.what, "%s", time.Since(ended).Round(100*time.Millisecond))
			if err := errors.Join(end.then(ctx), sc.changes(ctx, hosts[0])); err != nil {
				return fmt.Errorf("after %s was %s: %w", victim, end.what, err)
			}
		}
		if err := sc.nobodyBehind(ctx, 2); err != nil {
			return err
		}
		if err := errors.Join(sc.steady(ctx, clients, time.Second), sc.stop(ctx, "client")); err != nil {
			return err
		}
		return sc.allEnded(clients)
	})
}

// twoReplicas makes it two until the scene is over.
func (sc *Scene) twoReplicas(ctx context.Context) error {
	sc.Undo(func(ctx context.Context) error { return sc.scaleIstiod(ctx, 1) })
	return sc.scaleIstiod(ctx, 2)
}

// changes applies a policy and deletes it again, and looks both times that what
// was waited for is so.
func (sc *Scene) changes(ctx context.Context, host string) error {
	file := filepath.Join(sc.t.TempDir(), "policy.yaml")
	deny := sc.authz("not-denied", "  action: DENY\n  rules: [{from: [{source: {principals: ["+Principal(sc.NS, "denied")+"]}}]}]\n")
	if err := os.WriteFile(file, []byte(deny), 0o600); err != nil {
		return err
	}
	if _, err := ambit(ctx, "apply", "-f", file, "--wait"); err != nil {
		return err
	}
	if err := sc.Fails(ctx, "denied", "get", "--timeout", "3s", url(host, httpPort)); err != nil {
		return fmt.Errorf("every proxy is said to serve the policy: %w", err)
	}
	if _, err := ambit(ctx, "delete", "-f", file, "--wait"); err != nil {
		return err
	}
	if err := sc.Works(ctx, "denied", "get", "--timeout", "3s", url(host, httpPort)); err != nil {
		return fmt.Errorf("no proxy is said to serve the policy: %w", err)
	}
	return nil
}

// releases takes a namespace out of the mesh and waits until nothing of it is
// captured any more.
func (sc *Scene) releases(ctx context.Context, namespace, ip string) error {
	at, err := netnsWith(ctx, sc.Stage, ip)
	if err != nil {
		return err
	}
	if err := sc.Label(ctx, namespace, modeLabel, ""); err != nil {
		return err
	}
	began := time.Now()
	err = stage.Within(ctx, time.Minute, func(ctx context.Context) error {
		found, err := traces(ctx, at)
		if err == nil && found != "" {
			err = fmt.Errorf("the namespace of %s still holds %s", ip, found)
		}
		return err
	})
	sc.Figure("release of a namespace", "%s", time.Since(began).Round(100*time.Millisecond))
	return err
}

// whoServes is the replica that most proxies are connected to.
func (sc *Scene) whoServes(ctx context.Context) (pod string, err error) {
	err = Soon(ctx, func(ctx context.Context) error {
		var r ask.Report
		if err := asked(ctx, &r, "status"); err != nil {
			return err
		}
		of, most := map[string]int{}, 0
		for _, p := range r.Proxies {
			if of[p.ControlPlane]++; p.ControlPlane != "" && of[p.ControlPlane] > most {
				pod, most = strings.TrimPrefix(p.ControlPlane, manifests.Namespace+"/"), of[p.ControlPlane]
			}
		}
		if most == 0 || len(r.ControlPlanes) != 2 {
			return fmt.Errorf("not two replicas of which one serves: %+v", r)
		}
		return nil
	})
	return pod, err
}

// nobodyBehind waits until so many replicas run and every proxy has what is
// newest of the one that it is connected to.
func (sc *Scene) nobodyBehind(ctx context.Context, replicas int) error {
	return Soon(ctx, func(ctx context.Context) error {
		var r ask.Report
		if err := asked(ctx, &r, "status"); err != nil {
			return err
		}
		if len(r.ControlPlanes) != replicas || len(r.Proxies) < 2 || r.Behind() {
			return fmt.Errorf("not %d replicas and every proxy up to date: %+v", replicas, r)
		}
		return nil
	})
}

// asked reads what a command prints as JSON, also if it says that somebody is
// behind.
func asked(ctx context.Context, answer any, args ...string) error {
	var out, complaint bytes.Buffer
	code := command.Run(ctx, append(args, "-o", "json", "--kubeconfig", kubeconfig()), "e2e", &out, &complaint)
	if code != 0 && code != command.ExitUnhealthy {
		return fmt.Errorf("ambit %s: exit code %d: %s", strings.Join(args, " "), code, complaint.String())
	}
	return json.Unmarshal(out.Bytes(), answer)
}

// killWhoLeads kills the replica that leads a rotation once it is in a phase.
func (sc *Scene) killWhoLeads(ctx context.Context, phase string) error {
	if err := stage.Within(ctx, rotationLasts, func(ctx context.Context) error {
		a, err := authorityStatus(ctx)
		if err == nil && a.Phase != phase {
			err = fmt.Errorf("the rotation is in %s, and never was in %s", a.Phase, phase)
		}
		return err
	}); err != nil {
		return err
	}
	lease, err := sc.Reach.Client.CoordinationV1().Leases(manifests.Namespace).Get(ctx, "istiod-leader", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if lease.Spec.HolderIdentity == nil {
		return errors.New("no replica leads")
	}
	return sc.killIstiod(ctx, *lease.Spec.HolderIdentity)
}

// killIstiod kills the process of a replica, which the kubelet starts again.
func (sc *Scene) killIstiod(ctx context.Context, pod string) error {
	p, err := sc.Stage.Pod(ctx, manifests.Namespace, pod)
	if err != nil {
		return err
	}
	n, err := sc.signal(ctx, p.Status.PodIP, syscall.SIGKILL, "istiod")
	if err == nil && n != 1 {
		err = fmt.Errorf("killed %d processes of %s, want one", n, pod)
	}
	return err
}

// deleteIstiod deletes a replica's pod without any grace: another comes in its
// place.
func (sc *Scene) deleteIstiod(ctx context.Context, pod string) error {
	now := int64(0)
	return sc.Reach.Client.CoreV1().Pods(manifests.Namespace).Delete(ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: &now})
}

// stop asks the clients that run in a pod to end and to tell how it was.
func (sc *Scene) stop(ctx context.Context, pod string) error {
	p, err := sc.Stage.Pod(ctx, sc.NS, pod)
	if err != nil {
		return err
	}
	_, err = sc.signal(ctx, p.Status.PodIP, syscall.SIGTERM, "echo", "load", "hold")
	return err
}

// signal signals the processes of a program in the network namespace of an
// address, whose first argument is one of some if there are any.
func (sc *Scene) signal(ctx context.Context, ip string, s syscall.Signal, program string, first ...string) (n int, err error) {
	at, err := netnsWith(ctx, sc.Stage, ip)
	if err != nil {
		return 0, err
	}
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", at))
	if err != nil {
		return 0, err
	}
	status, err := sc.Cluster.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, m := range status.Machines {
		for _, pid := range descendants(m.PID) {
			if in, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil || in != namespace {
				continue
			}
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			if err != nil || filepath.Base(exe) != program || !begins(pid, first) {
				continue
			}
			if err := syscall.Kill(pid, s); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// begins reports whether the first argument of a process is one of some; none is
// any.
func begins(pid int, first []string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	args := strings.Split(string(text), "\x00")
	for _, f := range first {
		if err == nil && len(args) > 1 && args[1] == f {
			return true
		}
	}
	return len(first) == 0
}

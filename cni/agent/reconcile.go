package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/cni/handoff"
	"github.com/ambit-mesh/ambit/cni/members"
	"github.com/ambit-mesh/ambit/cni/podns"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// How long one step may take, and how soon a pod is looked at again that is on
// its way.
const (
	stepLimit  = 10 * time.Second
	soon       = 500 * time.Millisecond
	settleSoon = 250 * time.Millisecond
)

// reconcile brings one pod to where it belongs; again asks to be called again
// after that time.
func (a *Agent) reconcile(ctx context.Context, uid string) (again time.Duration, err error) {
	if !a.locks.try(uid) {
		return soon, nil // the plugin waits for it just now
	}
	defer a.locks.release(uid)
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	pod := a.pod(uid)
	if pod == nil {
		return a.gone(ctx, uid)
	}
	if enrol.Ended(pod) {
		a.cfg.Counts.reconciled("ended")
		return 0, errors.Join(a.cfg.Keeper.Forget(ctx, uid), a.annotate(ctx, pod, ""))
	}
	namespace, err := a.namespaces.Get(pod.Namespace)
	if err != nil {
		return 0, fmt.Errorf("reading namespace of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	d := a.decide(pod, namespace)
	phase := a.cfg.Keeper.Phase(uid)
	switch {
	case d.Enrol && phase == members.Free:
		return a.find(ctx, pod, d)
	case d.Enrol:
		return a.keep(ctx, pod, d, phase)
	case phase != members.Free:
		return a.release(ctx, pod, phase)
	}
	return 0, a.annotate(ctx, pod, "")
}

// gone lets go of a pod that the cluster does not know any more. A pod that the
// plugin told of can be newer than what is watched, so the cluster is asked.
func (a *Agent) gone(ctx context.Context, uid string) (time.Duration, error) {
	if a.cfg.Keeper.Phase(uid) == members.Free {
		return 0, nil
	}
	if name, namespace, ok := a.cfg.Keeper.Name(uid); ok {
		pod, err := a.cfg.Kube.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil && string(pod.UID) == uid:
			return soon, nil
		case err != nil && !apierrors.IsNotFound(err):
			return 0, fmt.Errorf("asking for pod %s/%s: %w", namespace, name, err)
		}
	}
	a.cfg.Counts.reconciled("gone")
	a.said.note(uid, "")
	a.seen.forget(uid)
	a.withdrawn.forget(uid)
	return 0, a.cfg.Keeper.Forget(ctx, uid)
}

// find begins to capture a running pod of whose start this agent has not been
// told: its label is new, or the agent is.
func (a *Agent) find(ctx context.Context, pod *corev1.Pod, d enrol.Decision) (time.Duration, error) {
	wanted := wantedOf(pod)
	if len(wanted.IPs) == 0 {
		return 0, nil // it has not started: the plugin will tell
	}
	found, err := podns.Scan(a.cfg.Proc, []podns.Wanted{wanted})
	if err != nil {
		return 0, err
	}
	ns := found[wanted.UID]
	if ns == nil {
		a.log.Debug("no process of the pod is found yet", "pod", pod.Namespace+"/"+pod.Name)
		return 2 * time.Second, nil
	}
	a.cfg.Counts.reconciled("enrol")
	p := a.podOf(pod, wanted.IPs, d)
	if pod.Annotations[enrol.RedirectionAnnotation] == enrol.Enabled {
		// It is said to be captured and peers count on it: first the rules.
		if err := a.cfg.Keeper.Restore(p, ns); err != nil {
			return 0, err
		}
	} else if err := a.cfg.Keeper.Enrol(p, ns); err != nil {
		return 0, err
	}
	return a.keep(ctx, pod, d, a.cfg.Keeper.Phase(wanted.UID))
}

// keep goes on with a pod that is held and belongs to the mesh.
func (a *Agent) keep(ctx context.Context, pod *corev1.Pod, d enrol.Decision, phase members.Phase) (time.Duration, error) {
	uid := string(pod.UID)
	ips := addressesOf(pod)
	if len(ips) == 0 {
		// The plugin told of it and the kubelet has not yet: its addresses are
		// those of the plugin.
		return soon, nil
	}
	taken := a.cfg.Keeper.DNSTaken(uid)
	if phase != members.Captured {
		a.withdrawn.forget(uid)
		a.cfg.Counts.reconciled("enrol")
		if err := a.cfg.Keeper.Advance(ctx, uid); err != nil {
			absent := errors.Is(err, handoff.ErrNoZtunnel)
			if !absent || pod.Annotations[enrol.RedirectionAnnotation] != enrol.Pending {
				a.warn(pod, reasonWaiting, "the pod is not captured by the mesh yet: "+err.Error())
			}
			if absent {
				err = nil // nothing is wrong with the pod, and it has been said
			}
			return soon, errors.Join(err, a.annotate(ctx, pod, enrol.Pending))
		}
	}
	err := a.cfg.Keeper.Look(a.podOf(pod, ips, d))
	a.seen.looked(uid, nil, err)
	if err != nil {
		return 0, err
	}
	if !taken && a.cfg.Keeper.DNSTaken(uid) {
		a.warn(pod, reasonNoDNS, "a program of the pod holds port 15053 of the mesh's DNS proxy: the pod's DNS queries are not captured, and names that only the mesh knows do not resolve")
	}
	// Once enabled, a ztunnel that is away for a moment changes nothing: peers
	// would fall back to plaintext, which a policy may refuse.
	if !a.said.enabled(pod) && !a.cfg.Ztunnels.Served(uid) {
		return soon, a.annotate(ctx, pod, enrol.Pending)
	}
	waits, again := a.cfg.Keeper.UDPWaits(uid), time.Duration(0)
	if waits {
		again = settleSoon
	}
	return again, errors.Join(a.annotate(ctx, pod, enrol.Enabled), a.annotateUDP(ctx, pod, d.Datagrams && !waits))
}

// release lets go of a running pod step by step. What is watched may lag behind
// what the plugin was told, and a pod of the mesh must not be uncovered by
// mistake: so the cluster is asked once more.
func (a *Agent) release(ctx context.Context, pod *corev1.Pod, phase members.Phase) (time.Duration, error) {
	if phase != members.Leaving && phase != members.Draining {
		d, err := a.ask(ctx, pod.Namespace, pod.Name, string(pod.UID))
		if err != nil {
			return 0, err
		}
		if d.Enrol {
			return soon, nil
		}
		a.cfg.Counts.reconciled("release")
		a.log.Info("pod no longer belongs to the mesh", "pod", pod.Namespace+"/"+pod.Name, "reason", d.Reason)
	}
	if err := a.cfg.Keeper.Release(ctx, string(pod.UID)); err != nil {
		return 0, err
	}
	// Plaintext is let in already; now peers stop sending HBONE.
	if err := a.annotate(ctx, pod, ""); err != nil {
		return 0, err
	}
	return a.settle(ctx, pod)
}

// settle goes on with a pod that leaves. An uninstallation is in a hurry.
func (a *Agent) settle(ctx context.Context, pod *corev1.Pod) (time.Duration, error) {
	uid, forHeard, forCaptured := string(pod.UID), heardLimit, time.Duration(0)
	if a.cfg.Leaving {
		forHeard, forCaptured = a.cfg.LeaveLimit/3, a.cfg.LeaveLimit
	}
	if a.cfg.Keeper.Phase(uid) == members.Leaving {
		if loose, err := a.cfg.Keeper.Loosen(uid, a.heard(ctx, pod), forHeard); err != nil || !loose {
			return settleSoon, err
		}
	}
	done, err := a.cfg.Keeper.Settle(ctx, uid, forCaptured)
	if err != nil {
		return 0, err
	}
	if done {
		a.withdrawn.forget(uid)
		return 0, nil
	}
	return settleSoon, nil
}

// ask decides by what the cluster says now.
func (a *Agent) ask(ctx context.Context, namespace, name, uid string) (enrol.Decision, error) {
	pod, ns, err := a.fetch(ctx, namespace, name)
	if err != nil {
		return enrol.Decision{}, err
	}
	if string(pod.UID) != uid {
		return enrol.Decision{Reason: "another pod has its name"}, nil
	}
	return a.decide(pod, ns), nil
}

func (a *Agent) fetch(ctx context.Context, namespace, name string) (*corev1.Pod, *corev1.Namespace, error) {
	pod, err := a.cfg.Kube.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("asking for pod %s/%s: %w", namespace, name, err)
	}
	ns, err := a.cfg.Kube.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("asking for namespace %s: %w", namespace, err)
	}
	return pod, ns, nil
}

func (a *Agent) podOf(pod *corev1.Pod, ips []netip.Addr, d enrol.Decision) members.Pod {
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	return members.Pod{
		Pod: zds.Pod{UID: string(pod.UID), Name: pod.Name, Namespace: pod.Namespace, ServiceAccount: account},
		IPs: ips, BypassInbound: d.BypassInbound, UDP: d.Datagrams, DNS: enrol.DNS(pod, !a.cfg.NoDNS), Probed: enrol.Probed(pod),
	}
}

func addressesOf(pod *corev1.Pod) (ips []netip.Addr) {
	for _, ip := range pod.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			ips = append(ips, a)
		}
	}
	return ips
}

func wantedOf(pod *corev1.Pod) podns.Wanted {
	w := podns.Wanted{UID: string(pod.UID), IPs: addressesOf(pod)}
	for _, all := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for _, c := range all {
			if _, id, ok := strings.Cut(c.ContainerID, "://"); ok {
				w.Containers = append(w.Containers, id)
			}
		}
	}
	return w
}

// closeAll closes namespaces that nobody took.
func closeAll(all map[string]*linux.NetNS) {
	for _, ns := range all {
		ns.Close()
	}
}

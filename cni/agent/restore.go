package agent

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/cni/members"
	"github.com/ambit-mesh/ambit/cni/podns"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// restore holds what is in the kernel from before this agent began, so that a
// ztunnel that connects afterwards goes on with it. What it finds wrong with
// one pod it logs; Run tries again.
func (a *Agent) restore() error {
	var pods []*corev1.Pod
	var wanted []podns.Wanted
	for _, o := range a.pods.List() {
		pod, ok := o.(*corev1.Pod)
		if !ok || pod.Spec.HostNetwork || enrol.Ended(pod) {
			continue
		}
		pods, wanted = append(pods, pod), append(wanted, wantedOf(pod))
	}
	found, err := podns.Scan(a.cfg.Proc, wanted)
	if err != nil {
		return fmt.Errorf("looking for the pods that run: %w", err)
	}
	defer closeAll(found)
	for i, pod := range pods {
		ns := found[wanted[i].UID]
		delete(found, wanted[i].UID)
		if err := a.restorePod(pod, wanted[i], ns); err != nil {
			a.log.Warn("taking over a running pod; will try again", "pod", pod.Namespace+"/"+pod.Name, "error", err)
		}
	}
	a.lookAtNode()
	return nil
}

// restorePod owns ns, which may be nil.
func (a *Agent) restorePod(pod *corev1.Pod, w podns.Wanted, ns *linux.NetNS) error {
	if !a.locks.try(w.UID) {
		return closeNS(ns) // it starts just now, before our eyes
	}
	defer a.locks.release(w.UID)
	if a.cfg.Keeper.Phase(w.UID) != members.Free {
		return closeNS(ns) // it has done so
	}
	namespace, err := a.namespaces.Get(pod.Namespace)
	if err != nil {
		return errors.Join(fmt.Errorf("reading namespace %s: %w", pod.Namespace, err), closeNS(ns))
	}
	d := a.decide(pod, namespace)
	annotated := pod.Annotations[enrol.RedirectionAnnotation] == enrol.Enabled
	if ns == nil {
		if d.Enrol && annotated {
			a.cfg.Ztunnels.Keep(w.UID)
		}
		return nil
	}
	present, err := rules.Present(ns)
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	p := a.podOf(pod, w.IPs, d)
	switch {
	case d.Enrol && (present || annotated):
		return a.cfg.Keeper.Restore(p, ns)
	case !d.Enrol && present:
		return a.cfg.Keeper.RestoreLeaving(p, ns)
	}
	return ns.Close() // not captured; if it is to be, Run does it
}

func closeNS(ns *linux.NetNS) error {
	if ns == nil {
		return nil
	}
	return ns.Close()
}

// Left reports whether no pod is held and none is said to be captured any more,
// which is what Leaving is for.
func (a *Agent) Left() bool {
	for _, o := range a.pods.List() {
		if pod, ok := o.(*corev1.Pod); ok && pod.Annotations[enrol.RedirectionAnnotation] != "" && !pod.Spec.HostNetwork {
			return false
		}
	}
	return len(a.cfg.Keeper.UIDs()) == 0
}

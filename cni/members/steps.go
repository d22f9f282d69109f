package members

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/cni/handoff"
	"github.com/ambit-mesh/ambit/cni/probes"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// Admit captures a pod whose containers have not started, and waits for
// ztunnel. It owns ns from now on, whatever it returns. On an error the pod
// must not start; if its rules were made they stay, which is closed.
func (k *Keeper) Admit(ctx context.Context, pod Pod, ns *linux.NetNS, sandbox string) error {
	if err := k.capture(pod, ns, sandbox); err != nil {
		return err
	}
	if err := k.cfg.Ztunnels.Wait(ctx, pod.UID); err != nil {
		return err
	}
	return k.applyProbes()
}

// Restore holds a running pod that was captured before this agent began,
// mending its rules if need be; ztunnel hears of it when it connects.
func (k *Keeper) Restore(pod Pod, ns *linux.NetNS) error {
	if err := k.capture(pod, ns, ""); err != nil {
		return err
	}
	return k.applyProbes()
}

// capture gives the pod all rules, and tells ztunnel without waiting.
func (k *Keeper) capture(pod Pod, ns *linux.NetNS, sandbox string) error {
	h := &held{pod: pod, ns: ns, sandbox: sandbox, phase: Captured}
	if err := k.ensure(h); err != nil {
		return errors.Join(err, ns.Close())
	}
	k.tune(h)
	k.hold(h)
	k.log.Info("pod captured", "pod", pod.String(), "uid", pod.UID)
	return k.cfg.Ztunnels.Put(pod.Pod, ns)
}

// RestoreDraining holds a running pod that was being let go of.
func (k *Keeper) RestoreDraining(pod Pod, ns *linux.NetNS) error {
	h := &held{pod: pod, ns: ns, phase: Draining, since: time.Now()}
	if err := k.ensure(h); err != nil {
		return errors.Join(err, ns.Close())
	}
	k.hold(h)
	return k.cfg.Ztunnels.Put(pod.Pod, ns)
}

// Enrol begins to capture a running pod; Advance goes on. It owns ns.
func (k *Keeper) Enrol(pod Pod, ns *linux.NetNS) error {
	h := &held{pod: pod, ns: ns, phase: Waiting}
	k.tune(h)
	k.hold(h)
	return errors.Join(k.applyProbes(), k.cfg.Ztunnels.Put(pod.Pod, ns))
}

// Advance captures a waiting pod as soon as ztunnel has taken it, and one that
// was being let go of at once. The others it leaves.
func (k *Keeper) Advance(ctx context.Context, uid string) error {
	h := k.get(uid)
	switch {
	case h == nil:
		return fmt.Errorf("pod %s is not held", uid)
	case h.phase == Waiting && k.cfg.Ztunnels.Connected() == 0:
		return handoff.ErrNoZtunnel
	case h.phase == Waiting:
		if err := k.cfg.Ztunnels.Wait(ctx, uid); err != nil {
			// It said no; the next time it is asked anew.
			return errors.Join(err, k.put(h))
		}
	case h.phase != Draining:
		return nil
	}
	h.phase = Captured
	if err := k.ensure(h); err != nil {
		return err
	}
	k.become(uid, func(h *held) { h.phase = Captured })
	k.log.Info("pod captured", "pod", h.pod.String(), "uid", uid)
	return k.applyProbes()
}

// put tells ztunnel of a pod again, if one is there that could have taken it.
func (k *Keeper) put(h *held) error {
	if k.cfg.Ztunnels.Connected() == 0 || k.cfg.Ztunnels.Served(h.pod.UID) {
		return nil
	}
	return k.cfg.Ztunnels.Put(h.pod.Pod, h.ns)
}

// Look compares a held pod with the kernel and with what is wished now, and
// mends what differs; drift says what had changed behind our back.
func (k *Keeper) Look(pod Pod) (drift []string, err error) {
	h := k.get(pod.UID)
	if h == nil {
		return nil, fmt.Errorf("pod %s is not held", pod.UID)
	}
	wished := h.pod.BypassInbound != pod.BypassInbound
	h.pod = pod
	k.become(pod.UID, func(h *held) { h.pod = pod })
	if h.phase == Waiting {
		return nil, k.applyProbes()
	}
	if drift, err = k.mend(h); err != nil {
		return nil, err
	}
	if wished {
		drift = nil
	}
	if len(drift) > 0 {
		k.log.Warn("the pod's rules had changed and are mended", "pod", pod.String(), "uid", pod.UID, "drift", drift)
	}
	return drift, errors.Join(k.put(h), k.applyProbes())
}

// Release stops capturing a pod that runs on; Settle ends it.
func (k *Keeper) Release(ctx context.Context, uid string) error {
	h := k.get(uid)
	switch {
	case h == nil || h.phase == Draining:
		return nil
	case h.phase == Waiting:
		return k.Forget(ctx, uid) // nothing was changed in it
	}
	h.phase = Draining
	if err := k.ensure(h); err != nil {
		return err
	}
	k.become(uid, func(h *held) { h.phase, h.since = Draining, time.Now() })
	k.log.Info("pod is being released", "pod", h.pod.String(), "uid", uid)
	return nil
}

// Settle ends the release of a pod when nothing of it is captured any more, or
// when it has taken longer than limit (0 is for ever); done says that it is.
func (k *Keeper) Settle(ctx context.Context, uid string, limit time.Duration) (done bool, err error) {
	h := k.get(uid)
	if h == nil || h.phase != Draining {
		return h == nil, nil
	}
	forced := limit > 0 && time.Since(h.since) > limit
	if !forced {
		if time.Since(h.since) < k.cfg.Grace {
			return false, nil
		}
		if n, err := rules.Captured(h.ns); err != nil || n > 0 {
			return false, err
		}
	}
	// Probes go around the rules as long as there are any; ztunnel lets go
	// before its way back is cut.
	if err := k.cfg.Ztunnels.Del(ctx, uid); err != nil && !forced {
		return false, err
	}
	if err := rules.Remove(h.ns); err != nil {
		return false, err
	}
	return true, k.Forget(ctx, uid)
}

// ensure gives the pod the rules of its phase if it has others.
func (k *Keeper) ensure(h *held) error {
	_, err := k.mend(h)
	return err
}

func (k *Keeper) mend(h *held) ([]string, error) {
	drift, err := rules.Check(h.ns, h.spec())
	if err != nil {
		return nil, fmt.Errorf("looking at the pod's rules: %w", err)
	}
	if len(drift) == 0 {
		return nil, nil
	}
	if err := rules.Apply(h.ns, h.spec()); err != nil {
		return drift, fmt.Errorf("writing the pod's rules: %w", err)
	}
	return drift, nil
}

func (k *Keeper) tune(h *held) {
	if err := rules.Tune(h.ns); err != nil {
		k.log.Debug("a restart of ztunnel may lose connections that are just being made", "pod", h.pod.String(), "error", err)
	}
}

// probeSpec is what is exempt for the pods that are held.
func (k *Keeper) probeSpec() probes.Spec {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := probes.Spec{UID: k.cfg.KubeletUID}
	for _, h := range k.held {
		for _, ip := range h.pod.IPs {
			for _, port := range h.pod.Probed {
				s.Pairs = append(s.Pairs, netip.AddrPortFrom(ip, port))
			}
		}
	}
	slices.SortFunc(s.Pairs, netip.AddrPort.Compare)
	return s
}

func sameProbes(a, b probes.Spec) bool { return a.UID == b.UID && slices.Equal(a.Pairs, b.Pairs) }

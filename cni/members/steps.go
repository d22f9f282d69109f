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
	h := newHeld(pod, ns, Waiting)
	h.sandbox, h.udp = sandbox, pod.UDP
	if err := k.take(h, Captured); err != nil {
		return err
	}
	k.tune(h)
	k.log.Info("pod captured", "pod", pod.String(), "uid", pod.UID)
	return k.cfg.Ztunnels.Put(pod.Pod, ns)
}

// RestoreLeaving holds a running pod that was being let go of.
func (k *Keeper) RestoreLeaving(pod Pod, ns *linux.NetNS) error {
	h := newHeld(pod, ns, Waiting)
	h.since, h.udp = time.Now(), pod.UDP
	if err := k.take(h, Leaving); err != nil {
		return err
	}
	return k.cfg.Ztunnels.Put(pod.Pod, ns)
}

// Enrol begins to capture a running pod; Advance goes on. It owns ns.
func (k *Keeper) Enrol(pod Pod, ns *linux.NetNS) error {
	h := newHeld(pod, ns, Waiting)
	if err := k.take(h, Waiting); err != nil {
		return err
	}
	k.tune(h)
	return errors.Join(k.applyProbes(), k.cfg.Ztunnels.Put(pod.Pod, ns))
}

// take holds a pod and gives it the rules of a phase. On an error nothing is
// held of it.
func (k *Keeper) take(h *held, phase Phase) error {
	if err := k.hold(h); err != nil {
		return errors.Join(err, h.ns.Close())
	}
	if err := k.claim(h.pod); err != nil {
		return errors.Join(err, k.unhold(h))
	}
	if err := k.become(h.pod.UID, func(h *held) { h.phase = phase }); err != nil {
		return errors.Join(err, k.unhold(h))
	}
	return nil
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
	case h.phase == Captured:
		return nil
	}
	taken := k.dnsTaken(h, h.pod)
	if err := k.become(uid, func(h *held) { h.phase, h.dnsTaken = Captured, taken }); err != nil {
		return err
	}
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

// Look brings a held pod to what is wished of it now, and mends what differs
// in the kernel.
func (k *Keeper) Look(pod Pod) error {
	h := k.get(pod.UID)
	if h == nil {
		return fmt.Errorf("pod %s is not held", pod.UID)
	}
	taken, udp, since := k.dnsTaken(h, pod), false, h.udpSince
	if pod.UDP && since.IsZero() {
		since = time.Now()
	}
	if pod.UDP {
		udp = h.udp || k.heard(h, since)
	}
	switch {
	case h.pod.BypassInbound != pod.BypassInbound, h.udp != udp, h.pod.DNS != pod.DNS, h.dnsTaken != taken:
		if err := k.become(pod.UID, func(h *held) { h.pod, h.dnsTaken, h.udp = pod, taken, udp }); err != nil {
			return err
		}
	default:
		k.set(pod.UID, func(h *held) { h.pod = pod })
		if err := k.mend(pod.UID, Looked); err != nil {
			return err
		}
	}
	k.set(pod.UID, func(h *held) {
		if h.udpSince = since; !pod.UDP {
			h.udpSince = time.Time{}
		}
	})
	if h.phase != Waiting {
		if err := k.put(h); err != nil {
			return err
		}
	}
	return k.applyProbes()
}

// heardWithin is how long a running pod's UDP goes on as before until ztunnel
// takes it. Then it is captured anyway: what was asked for closes.
const heardWithin = 10 * time.Second

// heard looks whether ztunnel takes the UDP of a pod, or has had its time to.
func (k *Keeper) heard(h *held, since time.Time) bool {
	if time.Since(since) > heardWithin {
		k.log.Warn("ztunnel does not take the pod's UDP: it is closed", "pod", h.pod.String(), "uid", h.pod.UID)
		return true
	}
	heard, err := rules.Heard(h.ns)
	if err != nil {
		k.log.Warn("looking at the pod's UDP", "pod", h.pod.String(), "uid", h.pod.UID, "error", err)
	}
	return heard
}

// UDPWaits reports whether a pod's UDP is to be captured, and is not yet.
func (k *Keeper) UDPWaits(uid string) bool {
	h := k.get(uid)
	return h != nil && h.pod.UDP && !h.udp
}

// dnsTaken looks whether ztunnel can answer the pod's DNS at all. What cannot be
// seen is as before.
func (k *Keeper) dnsTaken(h *held, pod Pod) bool {
	if !pod.DNS {
		return false
	}
	taken, err := rules.PortTaken(h.ns)
	if err != nil {
		k.log.Warn("looking at the pod's dns proxy", "pod", pod.String(), "uid", pod.UID, "error", err)
		return h.dnsTaken
	}
	return taken
}

// DNSTaken reports whether the pod's DNS is left alone because something of its
// own holds the port of ztunnel's DNS proxy.
func (k *Keeper) DNSTaken(uid string) bool {
	h := k.get(uid)
	return h != nil && h.dnsTaken
}

// Release begins to let go of a pod that runs on; Loosen goes on and Settle ends
// it.
func (k *Keeper) Release(ctx context.Context, uid string) error {
	h := k.get(uid)
	switch {
	case h == nil || h.phase == Leaving || h.phase == Draining:
		return nil
	case h.phase == Waiting:
		return k.Forget(ctx, uid) // nothing was changed in it
	}
	if err := k.become(uid, func(h *held) { h.phase, h.since = Leaving, time.Now() }); err != nil {
		return err
	}
	k.log.Info("pod is being released", "pod", h.pod.String(), "uid", uid)
	return nil
}

// Loosen captures nothing new of a pod that leaves: once its peers have heard
// that it does, or limit has passed since it began to, but never before the
// grace. It says whether it has.
func (k *Keeper) Loosen(uid string, heard bool, limit time.Duration) (bool, error) {
	h := k.get(uid)
	if h == nil || h.phase != Leaving {
		return true, nil
	}
	if took := time.Since(h.since); took < k.cfg.Grace || !heard && took < limit {
		return false, nil
	}
	if !heard {
		k.log.Warn("pod is released though not all peers may have heard of it", "pod", h.pod.String(), "uid", uid)
	}
	return true, k.become(uid, func(h *held) { h.phase = Draining })
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
		if n, err := rules.Captured(h.ns); err != nil || n > 0 {
			return false, err
		}
	}
	// Probes go around the rules as long as there are any; ztunnel lets go
	// before its way back is cut.
	if err := k.cfg.Ztunnels.Del(ctx, uid); err != nil && !forced {
		return false, err
	}
	if err := k.clean(h); err != nil {
		return false, err
	}
	return true, k.Forget(ctx, uid)
}

// clean removes the pod's rules, which nobody is to mend any more.
func (k *Keeper) clean(h *held) error {
	k.changes.Remove(h.pod.UID)
	h.kernel.Lock()
	defer h.kernel.Unlock()
	k.set(h.pod.UID, func(h *held) { h.phase = Waiting })
	if err := rules.Remove(h.ns); err != nil {
		k.set(h.pod.UID, func(h *held) { h.phase = Draining })
		return err
	}
	return nil
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

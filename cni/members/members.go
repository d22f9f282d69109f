// Package members owns the pods of the mesh on this node: which network
// namespaces they live in, and the order in which rules, ztunnel and probes are
// told of them, so that a new pod never starts outside the mesh and a running
// one loses no connection when it comes or goes.
//
//   - A pod that starts: rules, then ztunnel, then probes. Until ztunnel has
//     taken it, its connections are refused.
//   - A running pod that comes: probes, then ztunnel, then rules. Until ztunnel
//     has taken it, all stays as it was.
//   - A running pod that goes: redirects off; what is captured, and peers that
//     still send HBONE, are served until they have ended; then ztunnel, then
//     the rest of the rules.
//
// The kernel is the truth: Look compares it with what is wished and mends it.
//
// It refuses to know Kubernetes; cni/agent calls it, one call at a time a pod.
package members

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/cni/handoff"
	"github.com/ambit-mesh/ambit/cni/probes"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// Pod is what has to be known of a pod of the mesh.
type Pod struct {
	zds.Pod
	// IPs are its addresses.
	IPs []netip.Addr
	// BypassInbound leaves its inbound plaintext alone.
	BypassInbound bool
	// Probed are the ports that the kubelet calls.
	Probed []uint16
}

// Phase is how far a pod has come.
type Phase uint8

// The phases; Free is a pod that is not held.
const (
	Free Phase = iota
	// Waiting is a running pod that ztunnel has not taken yet; it is as before.
	Waiting
	// Captured is a pod with all rules.
	Captured
	// Draining is a pod that is let go of: nothing new is captured.
	Draining
)

// String is the name used in logs.
func (p Phase) String() string {
	return [...]string{"free", "waiting", "captured", "draining"}[p&3]
}

// Config is what New needs; all but KubeletUID and Grace is required.
type Config struct {
	// Ztunnels are told of pods.
	Ztunnels *handoff.Pods
	// Node is the node's own network namespace.
	Node *linux.NetNS
	// KubeletUID is who the kubelet runs as; 0 is root.
	KubeletUID uint32
	// Grace is how long a released pod goes on accepting HBONE at the least:
	// as long as peers may need to hear of it. 0 is 5 seconds.
	Grace time.Duration
	// Log receives state changes.
	Log *slog.Logger
}

// Keeper holds the node's pods.
type Keeper struct {
	cfg Config
	log *slog.Logger

	mu   sync.Mutex
	held map[string]*held

	probes struct {
		sync.Mutex
		applied bool
		last    probes.Spec
	}
}

// held is one pod. Its fields are changed under Keeper.mu by whoever makes the
// one call for the pod.
type held struct {
	pod     Pod
	ns      *linux.NetNS // owned
	sandbox string       // the runtime's id, if the pod started before our eyes
	phase   Phase
	since   time.Time // when draining began
}

func (h *held) spec() rules.Spec {
	return rules.Spec{BypassInbound: h.pod.BypassInbound, Draining: h.phase == Draining}
}

// New makes a keeper that holds nothing.
func New(cfg Config) *Keeper {
	if cfg.Grace == 0 {
		cfg.Grace = 5 * time.Second
	}
	return &Keeper{cfg: cfg, log: cfg.Log.With("component", "members"), held: map[string]*held{}}
}

// Phase says how far a pod has come.
func (k *Keeper) Phase(uid string) Phase {
	if h := k.get(uid); h != nil {
		return h.phase
	}
	return Free
}

// UIDs are the pods that are held.
func (k *Keeper) UIDs() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]string, 0, len(k.held))
	for uid := range k.held {
		all = append(all, uid)
	}
	return all
}

// Count is how many pods are in a phase.
func (k *Keeper) Count(p Phase) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, h := range k.held {
		if h.phase == p {
			n++
		}
	}
	return n
}

// Sandbox finds the pod whose sandbox it is.
func (k *Keeper) Sandbox(id string) (uid string, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid, h := range k.held {
		if h.sandbox == id && id != "" {
			return uid, true
		}
	}
	return "", false
}

func (k *Keeper) get(uid string) *held {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.held[uid]; h != nil {
		copied := *h
		return &copied
	}
	return nil
}

// hold begins to hold a pod, in place of what was held of it before.
func (k *Keeper) hold(h *held) {
	k.mu.Lock()
	old := k.held[h.pod.UID]
	k.held[h.pod.UID] = h
	k.mu.Unlock()
	if old != nil && old.ns != h.ns {
		old.ns.Close()
	}
}

// become changes a held pod.
func (k *Keeper) become(uid string, change func(*held)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.held[uid]; h != nil {
		change(h)
	}
}

// Forget lets go of a pod that has ended: there is nothing to spare in it.
func (k *Keeper) Forget(ctx context.Context, uid string) error {
	h := k.get(uid)
	if h == nil {
		return k.cfg.Ztunnels.Del(ctx, uid)
	}
	k.mu.Lock()
	delete(k.held, uid)
	k.mu.Unlock()
	k.log.Info("pod has left the mesh", "pod", h.pod.String(), "uid", uid)
	return errors.Join(k.applyProbes(), k.cfg.Ztunnels.Del(ctx, uid), h.ns.Close())
}

// Close lets go of the namespaces and leaves all rules as they are.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid, h := range k.held {
		h.ns.Close()
		delete(k.held, uid)
	}
}

// applyProbes brings the node's table to what is held, if it is not.
func (k *Keeper) applyProbes() error {
	k.probes.Lock()
	defer k.probes.Unlock()
	spec := k.probeSpec()
	if k.probes.applied && sameProbes(k.probes.last, spec) {
		return nil
	}
	if err := probes.Apply(k.cfg.Node, spec); err != nil {
		return fmt.Errorf("exempting kubelet probes: %w", err)
	}
	k.probes.applied, k.probes.last = true, spec
	return nil
}

// LookAtNode compares the node's table with what is held, and mends it; drift
// says what was mended.
func (k *Keeper) LookAtNode() (drift []string, err error) {
	if drift, err = k.nodeDrift(); err != nil {
		return nil, fmt.Errorf("looking at the node's rules: %w", err)
	}
	if len(drift) > 0 {
		k.log.Warn("the node's rules had changed and are mended", "drift", drift)
	}
	return drift, k.applyProbes()
}

// LeaveNode removes the node's table; no pod may be held any more.
func (k *Keeper) LeaveNode() error {
	k.probes.Lock()
	defer k.probes.Unlock()
	k.probes.applied = false
	return probes.Remove(k.cfg.Node)
}

// nodeDrift is how the kernel differs from what was last applied.
func (k *Keeper) nodeDrift() ([]string, error) {
	k.probes.Lock()
	defer k.probes.Unlock()
	if !k.probes.applied {
		return nil, nil
	}
	drift, err := probes.Check(k.cfg.Node, k.probes.last)
	if len(drift) > 0 {
		k.probes.applied = false
	}
	return drift, err
}

// Name is the pod's name and namespace.
func (k *Keeper) Name(uid string) (name, namespace string, ok bool) {
	if h := k.get(uid); h != nil {
		return h.pod.Name, h.pod.Namespace, true
	}
	return "", "", false
}

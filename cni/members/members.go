// Package members owns the pods of the mesh on this node: which network
// namespaces they live in, and the order in which rules, ztunnel and probes are
// told of them, so that a new pod never starts outside the mesh and a running
// one loses no connection when it comes or goes.
//
//   - A pod that starts: rules, then ztunnel, then probes. Until ztunnel has
//     taken it, its connections are refused.
//   - A running pod that comes: probes, then ztunnel, then rules. Until ztunnel
//     has taken it, all stays as it was.
//   - A running pod that goes: first what comes to it in clear is let in, while
//     what it sends is still carried; when its peers have heard that it goes,
//     nothing new is captured; what is, and peers that still send HBONE, are
//     served until they have ended; then ztunnel, then the rest of the rules.
//     So neither it nor a peer is refused for a proxy that one of them still
//     expects, even where plaintext is refused.
//
// Pod, network namespace and address are bound: one that another pod has is
// refused, so that no pod is served under another's identity.
//
// The kernel is the truth: what is in it is compared with what is wished and
// mended, at once when the kernel tells of a change (Watch), and whenever it is
// looked at (Look).
//
// It refuses to know Kubernetes; cni/agent calls it, one call at a time a pod.
package members

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/cni/changes"
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
	// UDP brings its datagrams to ztunnel, too. A running pod's are brought to it
	// once ztunnel takes them, or soon after; what goes on as before is no looser.
	UDP bool
	// DNS brings its DNS queries to ztunnel.
	DNS bool
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
	// Leaving is a pod that is let go of, of which not all peers may have heard:
	// only what it sends is captured.
	Leaving
	// Draining is one of which they have: nothing new is captured.
	Draining
)

// String is the name used in logs.
func (p Phase) String() string {
	return [...]string{"free", "waiting", "captured", "leaving", "draining"}[min(p, Draining)]
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
	// Mended is told what had changed behind our back and is mended; nil is
	// nobody.
	Mended func(Mending)
	// Log receives state changes.
	Log *slog.Logger
}

// Keeper holds the node's pods.
type Keeper struct {
	cfg     Config
	log     *slog.Logger
	changes *changes.Watcher

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
	since   time.Time // when it began to leave
	// dnsTaken is set while something of the pod's own holds the port of
	// ztunnel's DNS proxy: its queries are left alone then.
	dnsTaken bool

	// udp is set while the pod's datagrams are captured, and udpSince when that was
	// first wanted of a running pod.
	udp      bool
	udpSince time.Time

	// kernel is held while the pod's rules are compared and written, and while
	// it comes into another state with other rules.
	kernel *sync.Mutex
}

func (h *held) spec() rules.Spec {
	return rules.Spec{
		BypassInbound: h.pod.BypassInbound || h.phase == Leaving, DNS: h.pod.DNS && !h.dnsTaken, UDP: h.udp, Draining: h.phase == Draining,
	}
}

// New makes a keeper that holds nothing; Close it.
func New(cfg Config) (*Keeper, error) {
	if cfg.Grace == 0 {
		cfg.Grace = 5 * time.Second
	}
	if cfg.Mended == nil {
		cfg.Mended = func(Mending) {}
	}
	watcher, err := changes.New()
	if err != nil {
		return nil, err
	}
	k := &Keeper{cfg: cfg, log: cfg.Log.With("component", "members"), changes: watcher, held: map[string]*held{}}
	k.watch(node, cfg.Node)
	return k, nil
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

// Held is a pod of the mesh and how far it has come.
type Held struct {
	Pod   Pod
	Phase Phase
}

// List is every pod that is held.
func (k *Keeper) List() []Held {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []Held
	for _, h := range k.held {
		all = append(all, Held{h.pod, h.phase})
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

// hold begins to hold a pod, in place of what was held of it before, unless
// another has its namespace.
func (k *Keeper) hold(h *held) error {
	k.mu.Lock()
	for uid, other := range k.held {
		if uid != h.pod.UID && other.ns.ID() == h.ns.ID() {
			k.mu.Unlock()
			return fmt.Errorf("its network namespace is that of pod %s (uid %s)", other.pod, uid)
		}
	}
	old := k.held[h.pod.UID]
	k.held[h.pod.UID] = h
	k.mu.Unlock()
	if old != nil && old.ns != h.ns {
		old.close()
	}
	k.watch(h.pod.UID, h.ns)
	return nil
}

// claim is an error if another pod that is held still has one of the pod's
// addresses. One whose namespace has it no more has ended: addresses are given
// out again.
func (k *Keeper) claim(pod Pod) error {
	for _, other := range k.sharing(pod) {
		own, err := rules.Addresses(other.ns)
		if err != nil {
			return fmt.Errorf("looking at the addresses of pod %s: %w", other.pod, err)
		}
		for _, ip := range pod.IPs {
			if own[ip.Unmap()] && slices.Contains(other.pod.IPs, ip) {
				return fmt.Errorf("its address %s is on pod %s (uid %s) as well", ip, other.pod, other.pod.UID)
			}
		}
	}
	return nil
}

// sharing are the other pods that have an address of the pod's.
func (k *Keeper) sharing(pod Pod) (all []*held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid, other := range k.held {
		if uid != pod.UID && slices.ContainsFunc(other.pod.IPs, func(ip netip.Addr) bool { return slices.Contains(pod.IPs, ip) }) {
			copied := *other
			all = append(all, &copied)
		}
	}
	return all
}

// unhold lets go of what could not be captured.
func (k *Keeper) unhold(h *held) error {
	k.mu.Lock()
	if k.held[h.pod.UID] == h {
		delete(k.held, h.pod.UID)
		defer k.changes.Remove(h.pod.UID)
	}
	k.mu.Unlock()
	return h.close()
}

// close lets go of the namespace when nobody works in it.
func (h *held) close() error {
	h.kernel.Lock()
	defer h.kernel.Unlock()
	return h.ns.Close()
}

// watch has the kernel tell of changes in a namespace. If it cannot, they are
// only seen when somebody looks.
func (k *Keeper) watch(key string, ns *linux.NetNS) {
	if err := k.changes.Add(key, ns); err != nil {
		k.log.Warn("changes of rules are noticed only by looking", "uid", key, "error", err)
	}
}

// set changes a held pod in what its rules do not depend on.
func (k *Keeper) set(uid string, change func(*held)) {
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
	k.changes.Remove(uid)
	k.mu.Lock()
	delete(k.held, uid)
	k.mu.Unlock()
	k.log.Info("pod has left the mesh", "pod", h.pod.String(), "uid", uid)
	return errors.Join(k.applyProbes(), k.cfg.Ztunnels.Del(ctx, uid), h.close())
}

// Close lets go of the namespaces and leaves all rules as they are.
func (k *Keeper) Close() {
	if err := k.changes.Close(); err != nil {
		k.log.Warn("ending to watch for changes", "error", err)
	}
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

// LeaveNode removes the node's table; no pod may be held any more.
func (k *Keeper) LeaveNode() error {
	k.probes.Lock()
	defer k.probes.Unlock()
	k.probes.applied = false
	return probes.Remove(k.cfg.Node)
}

// Name is the pod's name and namespace.
func (k *Keeper) Name(uid string) (name, namespace string, ok bool) {
	if h := k.get(uid); h != nil {
		return h.pod.Name, h.pod.Namespace, true
	}
	return "", "", false
}

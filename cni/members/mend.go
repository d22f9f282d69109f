package members

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/cni/probes"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// Noticed says how a change was noticed.
type Noticed string

// The ways.
const (
	// Told: the kernel told of it.
	Told Noticed = "told"
	// Looked: it was seen when kernel and wish were compared.
	Looked Noticed = "looked"
)

// Mending is something that had changed behind our back and is mended.
type Mending struct {
	// UID is the pod's; empty for the node's own table.
	UID     string
	Noticed Noticed
	// Drift says in words what had changed.
	Drift []string
}

// node is the key of the node's own namespace among those that are watched.
const node = ""

// Watch mends what the kernel tells of, until ctx ends.
func (k *Keeper) Watch(ctx context.Context) error {
	return k.changes.Run(ctx, func(key string) {
		mend := func() error { return k.mend(key, Told) }
		if key == node {
			mend = func() error { return k.mendNode(Told) }
		}
		if err := mend(); err != nil {
			k.log.Log(ctx, severity(err), "mending rules; will be looked at again", "uid", key, "error", err)
		}
	})
}

// severity is low for a namespace whose loopback interface is down: it is being
// taken away with its pod.
func severity(err error) slog.Level {
	if errors.Is(err, unix.ENETDOWN) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

func newHeld(pod Pod, ns *linux.NetNS, phase Phase) *held {
	return &held{pod: pod, ns: ns, phase: phase, kernel: &sync.Mutex{}}
}

// mend gives a held pod the rules of its state if it has others, and tells of
// it. A pod that has left meanwhile needs none.
func (k *Keeper) mend(uid string, noticed Noticed) error {
	before := k.get(uid)
	if before == nil {
		return nil
	}
	before.kernel.Lock()
	defer before.kernel.Unlock()
	h := k.get(uid)
	if h == nil || h.kernel != before.kernel {
		return nil
	}
	began := time.Now()
	drift, err := k.conform(h)
	if len(drift) > 0 {
		k.log.Warn("the pod's rules had changed and are mended", "pod", h.pod.String(), "uid", uid,
			"drift", drift, "noticed", noticed, "took", time.Since(began))
		k.cfg.Mended(Mending{UID: uid, Noticed: noticed, Drift: drift})
	}
	return err
}

// become brings a held pod into another state and gives it the rules of it.
// Whoever mends at the same time sees both or neither; on an error all is as
// before.
func (k *Keeper) become(uid string, change func(*held)) error {
	before := k.get(uid)
	if before == nil {
		return fmt.Errorf("pod %s is not held", uid)
	}
	before.kernel.Lock()
	defer before.kernel.Unlock()
	after := *before
	change(&after)
	if _, err := k.conform(&after); err != nil {
		return err
	}
	// Not when rules are mended: while they were damaged a connection may have
	// seen resets that were not its own.
	if after.phase != before.phase {
		if err := rules.ForgetEnded(after.ns); err != nil {
			k.log.Debug("who was refused and comes again from the same port may be led as before for some seconds", "pod", after.pod.String(), "error", err)
		}
	}
	k.set(uid, change)
	return nil
}

// conform compares the kernel with the state of h, and writes what h is to have
// if that differs.
func (k *Keeper) conform(h *held) (drift []string, err error) {
	if h.phase == Waiting {
		return nil, nil // nothing has been changed in it yet
	}
	drift, err = rules.Check(h.ns, h.spec())
	if err != nil {
		return nil, fmt.Errorf("looking at the pod's rules: %w", err)
	}
	if len(drift) == 0 {
		return nil, nil
	}
	if err := rules.Apply(h.ns, h.spec()); err != nil {
		return nil, fmt.Errorf("writing the pod's rules, which had changed (%q): %w", drift, err)
	}
	if h.phase != Draining { // ztunnel answers to the last what it has begun
		if err := rules.ForgetNames(h.ns, h.spec()); err != nil {
			k.log.Debug("programs that keep their dns socket may go on as before for a while", "pod", h.pod.String(), "error", err)
		}
	}
	return drift, nil
}

// LookAtNode compares the node's table with what is held, and mends it.
func (k *Keeper) LookAtNode() error {
	if err := k.mendNode(Looked); err != nil {
		return err
	}
	return k.applyProbes()
}

// mendNode brings the node's table back to what was last applied.
func (k *Keeper) mendNode(noticed Noticed) error {
	k.probes.Lock()
	defer k.probes.Unlock()
	if !k.probes.applied {
		return nil
	}
	drift, err := probes.Check(k.cfg.Node, k.probes.last)
	if err != nil {
		return fmt.Errorf("looking at the node's rules: %w", err)
	}
	if len(drift) == 0 {
		return nil
	}
	if err := probes.Apply(k.cfg.Node, k.probes.last); err != nil {
		k.probes.applied = false
		return fmt.Errorf("writing the node's rules, which had changed (%q): %w", drift, err)
	}
	k.log.Warn("the node's rules had changed and are mended", "drift", drift, "noticed", noticed)
	k.cfg.Mended(Mending{Noticed: noticed, Drift: drift})
	return nil
}

// Package handoff owns what the node's ztunnels have been told: the pods of the
// mesh with their network namespaces. It serves the agent's end of the
// protocol and brings each ztunnel that connects, and reconnects, to the same
// state (dataplane spec 3.3-3.7).
//
// It is driven by state, not by events: Put and Del change what is wished, and
// one goroutine a connection works off the difference to what its ztunnel has
// acknowledged. So a ztunnel that comes late, or an older one that outlives
// the newest, misses nothing. New pods go only to the newest, removals to all.
//
// It refuses to touch rules; cni/members calls it.
package handoff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// ErrNoZtunnel says that no ztunnel took a pod in time because none is
// connected.
var ErrNoZtunnel = errors.New("no ztunnel is connected on this node")

// Pods is the wish. The zero value is not usable; call New.
type Pods struct {
	log *slog.Logger

	mu      sync.Mutex
	wished  map[string]*wish
	unknown map[string]bool // pods that live in a namespace we do not know
	links   []*link         // connected ztunnels, the newest last
	changed chan struct{}   // closed and replaced at every change
	version uint64          // of the last Put
}

// wish is one pod that ztunnel is to serve.
type wish struct {
	pod     zds.Pod
	ns      *linux.NetNS // owned by the wish
	version uint64       // of its Put
}

// New makes an empty wish.
func New(log *slog.Logger) *Pods {
	return &Pods{
		log:    log.With("component", "handoff"),
		wished: map[string]*wish{}, unknown: map[string]bool{},
		changed: make(chan struct{}),
	}
}

// Put wishes that pod be served in ns, of which it keeps a copy. A pod that is
// put again is sent again.
func (p *Pods) Put(pod zds.Pod, ns *linux.NetNS) error {
	kept, err := duplicate(ns)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.wished[pod.UID]; old != nil {
		old.ns.Close()
	}
	p.version++
	p.wished[pod.UID] = &wish{pod: pod, ns: kept, version: p.version}
	delete(p.unknown, pod.UID)
	p.changedLocked()
	return nil
}

// Wait waits until the newest ztunnel has answered to the pod's last Put, and
// gives its answer: nil, a *zds.NackError, or ErrNoZtunnel when ctx ends.
func (p *Pods) Wait(ctx context.Context, uid string) error {
	for {
		p.mu.Lock()
		w, changed, connected := p.wished[uid], p.changed, len(p.links) > 0
		var got answer
		if w != nil && connected {
			got = p.links[len(p.links)-1].known[uid]
		}
		p.mu.Unlock()
		switch {
		case w == nil:
			return fmt.Errorf("pod %s was withdrawn meanwhile", uid)
		case got.version == w.version:
			return got.err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if !connected {
				return ErrNoZtunnel
			}
			return fmt.Errorf("waiting for ztunnel to take the pod: %w", context.Cause(ctx))
		}
	}
}

// Served reports whether a ztunnel serves the pod as it was last put.
func (p *Pods) Served(uid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.wished[uid]
	if w == nil {
		return false
	}
	for _, l := range p.links {
		if got := l.known[uid]; got.version == w.version && got.err == nil {
			return true
		}
	}
	return false
}

// Keep says that the pod lives, so that a ztunnel that serves it goes on,
// though its namespace is not known here.
func (p *Pods) Keep(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wished[uid] == nil {
		p.unknown[uid] = true
	}
}

// Del withdraws the pod and waits until no connected ztunnel serves it.
func (p *Pods) Del(ctx context.Context, uid string) error {
	p.mu.Lock()
	delete(p.unknown, uid)
	if w := p.wished[uid]; w != nil {
		w.ns.Close()
		delete(p.wished, uid)
		p.changedLocked()
	}
	p.mu.Unlock()
	for {
		p.mu.Lock()
		changed, served := p.changed, false
		for _, l := range p.links {
			_, knows := l.known[uid]
			served = served || knows
		}
		p.mu.Unlock()
		if !served {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for ztunnel to let go of pod %s: %w", uid, context.Cause(ctx))
		}
	}
}

// Connected is how many ztunnels have been brought up to date.
func (p *Pods) Connected() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, l := range p.links {
		if l.snapshotSent {
			n++
		}
	}
	return n
}

// Close lets go of the namespaces; call it after Serve has returned.
func (p *Pods) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for uid, w := range p.wished {
		w.ns.Close()
		delete(p.wished, uid)
	}
}

func (p *Pods) changedLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

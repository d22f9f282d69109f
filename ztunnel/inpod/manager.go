package inpod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/drain"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// Proxy serves one pod.
type Proxy interface {
	// StopAccepting closes the listeners; what was accepted goes on.
	StopAccepting()
	// Drain stops accepting, waits until all connections have ended, and cuts
	// those that are left when ctx is done.
	Drain(ctx context.Context) error
}

// Config says what a Manager works with.
type Config struct {
	// Path is the agent's socket. Empty is zds.DefaultPath.
	Path string
	// Start begins to serve a pod. It must be quick: the agent waits. Required.
	Start func(pod zds.Pod, ns *linux.NetNS) (Proxy, error)
	// Ready is told whether the agent's pods are known; nil is nobody.
	Ready func(bool)
	// Retry is how often pods that could not be served are tried again. Zero is
	// 5 s.
	Retry time.Duration
	// Logger is required.
	Logger *slog.Logger
}

// Manager is the list of pods.
type Manager struct {
	config Config
	log    *slog.Logger

	draining sync.WaitGroup
	cut      context.Context // ends when nothing may drain any longer
	cancel   context.CancelCauseFunc

	mu      sync.Mutex
	pods    map[string]*pod   // by UID
	old     map[*pod]struct{} // draining
	stopped bool              // no more pods
	counts  counts
}

// pod is one pod's state, guarded by Manager.mu.
type pod struct {
	zds.Pod
	ns    *linux.NetNS
	proxy Proxy // nil while pending
	err   error // why pending
	since time.Time
}

// New makes a manager without pods.
func New(c Config) *Manager {
	if c.Path == "" {
		c.Path = zds.DefaultPath
	}
	if c.Ready == nil {
		c.Ready = func(bool) {}
	}
	if c.Retry == 0 {
		c.Retry = 5 * time.Second
	}
	m := &Manager{
		config: c,
		log:    c.Logger.With("component", "inpod"),
		pods:   map[string]*pod{},
		old:    map[*pod]struct{}{},
	}
	m.cut, m.cancel = context.WithCancelCause(context.Background())
	return m
}

// add begins to serve p in the namespace of netns, which it takes over.
func (m *Manager) add(p zds.Pod, netns *os.File) error {
	ns, err := linux.NetNSFromFile(netns)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return errors.Join(errors.New("ztunnel is shutting down"), ns.Close())
	}
	if now := m.pods[p.UID]; now != nil {
		if now.ns.ID() == ns.ID() && now.proxy != nil {
			if now.Pod != p {
				return errors.Join(fmt.Errorf("it is served as %s (account %s): a pod does not change who it is", now.Pod, now.ServiceAccount), ns.Close())
			}
			return ns.Close() // told again, as each new connection does
		}
		m.removeLocked(p.UID)
	}
	fresh := &pod{Pod: p, ns: ns}
	m.pods[p.UID] = fresh
	return m.startLocked(fresh)
}

// startLocked serves p or leaves it pending. In one namespace there is one pod:
// two proxies in it would take each other's connections, each in the name of
// its own.
func (m *Manager) startLocked(p *pod) error {
	p.since = time.Now()
	if p.err = m.takenLocked(p); p.err == nil {
		p.proxy, p.err = m.config.Start(p.Pod, p.ns)
	}
	if p.err != nil {
		p.proxy = nil
		return p.err
	}
	m.counts.started++
	m.log.Info("serving pod", "pod", p.Pod.String(), "uid", p.UID, "netns", p.ns.ID().Ino)
	return nil
}

// takenLocked is an error if another pod is served in p's namespace.
func (m *Manager) takenLocked(p *pod) error {
	for _, other := range m.pods {
		if other != p && other.proxy != nil && other.ns.ID() == p.ns.ID() {
			return fmt.Errorf("its network namespace is served as that of pod %s (uid %s)", other.Pod, other.UID)
		}
	}
	return nil
}

// remove stops serving the pod: at once for new connections, and for accepted
// ones when they end or the pod is torn down.
func (m *Manager) remove(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removeLocked(uid)
}

func (m *Manager) removeLocked(uid string) {
	p := m.pods[uid]
	if p == nil {
		return
	}
	delete(m.pods, uid)
	if p.proxy == nil {
		p.ns.Close()
		return
	}
	m.counts.stopped++
	p.proxy.StopAccepting()
	m.old[p] = struct{}{}
	m.log.Info("no longer serving pod", "pod", p.Pod.String(), "uid", p.UID)
	m.draining.Go(func() { m.drainOld(p) })
}

// goneInterval is how often a draining pod is looked at.
const goneInterval = time.Second

// drainOld lets the connections of a pod end by themselves for as long as the
// pod exists: a pod that leaves the mesh keeps those it has.
func (m *Manager) drainOld(p *pod) {
	ctx, cancel := context.WithCancelCause(m.cut)
	drained := make(chan error, 1)
	go func() { drained <- p.proxy.Drain(ctx) }()
	tick := time.NewTicker(goneInterval)
	defer tick.Stop()
	var err error
	for waiting := true; waiting; {
		select {
		case err = <-drained:
			waiting = false
		case <-tick.C:
			if alive, err := p.ns.HasLinks(); err == nil && !alive {
				cancel(drain.ErrGone)
			}
		}
	}
	cancel(nil)
	if err != nil {
		m.log.Warn("draining pod", "pod", p.Pod.String(), "error", err)
	}
	p.ns.Close()
	m.mu.Lock()
	delete(m.old, p)
	m.mu.Unlock()
}

// keepOnly removes every pod that is not in the agent's snapshot.
func (m *Manager) keepOnly(snapshot map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid := range m.pods {
		if !snapshot[uid] {
			m.removeLocked(uid)
		}
	}
}

// retry tries the pending pods again.
func (m *Manager) retry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return
	}
	for _, p := range m.pods {
		if p.proxy != nil {
			continue
		}
		before := p.err.Error()
		if err := m.startLocked(p); err != nil && err.Error() != before {
			m.log.Warn("pod cannot be served yet", "pod", p.Pod.String(), "error", err)
		}
	}
}

// Drain stops serving every pod, and cuts at the end of ctx what has not ended
// by then. No pod is served afterwards.
func (m *Manager) Drain(ctx context.Context) error {
	m.mu.Lock()
	m.stopped = true
	for uid := range m.pods {
		m.removeLocked(uid)
	}
	m.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { m.cancel(drain.ErrDeadline) })
	defer stop()
	m.draining.Wait()
	m.cancel(nil)
	return nil
}

package ztunnel

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel/inpod"
	"github.com/ambit-mesh/ambit/ztunnel/podproxy"
)

// pods is whom the data plane serves: the pods of the agent, or one.
type pods interface {
	// task names the readiness task.
	task() string
	// run serves until ctx is done; ready is told how it is going.
	run(ctx context.Context, ready func(bool)) error
	// drain ends the serving; what is left at the end of ctx is cut.
	drain(ctx context.Context) error
	list() []inpod.Status
}

func (p *proxy) podConfig() podproxy.Config {
	c := &p.config
	return podproxy.Config{
		Store: p.store, Credentials: p.certs, Recorder: p.recorder, Tracer: p.tracer, DryRuns: p.dryRuns, Decisions: p.decisions, Logger: c.Logger,
		Mark: c.Mark, NoReusePort: c.NoReusePort, NoOriginalSource: c.NoOriginalSource, KeepAlive: c.KeepAlive,
		Names: p.names, Tuning: c.Tuning, IdleTunnel: c.IdleTunnel, IdleFlow: c.IdleFlow, MaxTunnelStreams: c.MaxTunnelStreams,
		Transports: p.transports, DatagramDrops: p.drops,
	}
}

func (p *proxy) newPods() (pods, error) {
	start := func(pod zds.Pod, ns *linux.NetNS) (*podproxy.Proxy, error) {
		p.warm(p.store.View(), pod)
		return podproxy.Start(p.podConfig(), pod, ns)
	}
	if p.config.Only != nil {
		return &single{pod: *p.config.Only, start: start}, nil
	}
	agent := &agentPods{socket: p.config.AgentSocket}
	agent.manager = inpod.New(inpod.Config{
		Path:   p.config.AgentSocket,
		Logger: p.config.Logger,
		Ready:  agent.setReady,
		Start: func(pod zds.Pod, ns *linux.NetNS) (inpod.Proxy, error) {
			proxy, err := start(pod, ns)
			if err != nil {
				return nil, err // not a nil *Proxy in a non-nil interface
			}
			return proxy, nil
		},
	})
	if err := p.registry.Register(agent.manager); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return agent, nil
}

// agentPods are those that the CNI agent names.
type agentPods struct {
	socket  string
	manager *inpod.Manager

	mu    sync.Mutex
	ready func(bool)
}

func (a *agentPods) setReady(ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ready != nil {
		a.ready(ok)
	}
}

func (a *agentPods) task() string { return "workload proxy manager" }

func (a *agentPods) run(ctx context.Context, ready func(bool)) error {
	a.mu.Lock()
	a.ready = ready
	a.mu.Unlock()
	return a.manager.Run(ctx)
}

func (a *agentPods) drain(ctx context.Context) error { return a.manager.Drain(ctx) }
func (a *agentPods) list() []inpod.Status            { return a.manager.Pods() }

// single is one pod, in this process's namespace.
type single struct {
	pod   zds.Pod
	start func(zds.Pod, *linux.NetNS) (*podproxy.Proxy, error)

	mu    sync.Mutex
	proxy *podproxy.Proxy
	since time.Time
}

func (s *single) task() string { return "proxy" }

func (s *single) run(ctx context.Context, ready func(bool)) error {
	proxy, err := s.start(s.pod, nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proxy, s.since = proxy, time.Now()
	s.mu.Unlock()
	ready(true)
	<-ctx.Done()
	return nil
}

func (s *single) drain(ctx context.Context) error {
	s.mu.Lock()
	proxy := s.proxy
	s.mu.Unlock()
	if proxy == nil {
		return nil
	}
	return proxy.Drain(ctx)
}

func (s *single) list() []inpod.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proxy == nil {
		return nil
	}
	return []inpod.Status{{Pod: s.pod, State: inpod.Up, Since: s.since, Proxy: s.proxy}}
}

// tunnels is how many tunnels to others all pods have, the draining ones too.
func (p *proxy) tunnels() (n int) {
	for _, s := range p.pods.list() {
		if proxy, ok := s.Proxy.(*podproxy.Proxy); ok {
			n += proxy.Tunnels()
		}
	}
	return n
}

// housekeeping is how often pods are looked at when nothing changes.
const housekeeping = 10 * time.Second

// follow brings every pod up to date with each new state, until ctx is done.
// States that come while it works are skipped but for the last.
func (p *proxy) follow(ctx context.Context) error {
	held, settled := map[spiffe.ID]bool{}, false
	for {
		v, known := p.store.View(), p.known.Load()
		held = p.followOnce(v, held)
		if known && !settled {
			settled = true
			p.forgetGone()
		}
		timer := time.NewTimer(housekeeping)
		select {
		case <-v.Superseded():
		case <-p.certs.renewed.Wake():
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// followOnce returns the identities of the pods, and lets go of those that
// none has any longer.
func (p *proxy) followOnce(v *view.View, held map[spiffe.ID]bool) map[spiffe.ID]bool {
	now, renewed := map[spiffe.ID]bool{}, p.certs.renewed.Take()
	for _, s := range p.pods.list() {
		if id := p.warm(v, s.Pod); !id.IsZero() {
			now[id] = true
		}
		proxy, ok := s.Proxy.(*podproxy.Proxy)
		if !ok {
			continue
		}
		if cut := proxy.Follow(v, renewed); cut > 0 {
			p.log.Info("connections cut by policy", "pod", s.Pod.String(), "count", cut)
		}
	}
	for id := range held {
		if !now[id] {
			p.certs.Forget(id)
			p.kept.CertificatesChanged()
		}
	}
	return now
}

// warm fetches a pod's certificate before its first connection, once its
// record tells the trust domain.
func (p *proxy) warm(v *view.View, pod zds.Pod) spiffe.ID {
	w := v.WorkloadByAccount(pod.Namespace, pod.Name, pod.ServiceAccount)
	if w == nil {
		return spiffe.ID{}
	}
	p.certs.Warm(w.Identity())
	return w.Identity()
}

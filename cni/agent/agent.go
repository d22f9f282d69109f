// Package agent owns the node agent's dealings with Kubernetes: it watches the
// pods of its node and all namespaces, decides by cni/enrol, acts by
// cni/members, and says on the pod what came of it. It also answers the CNI
// plugin, which holds each new pod until it has.
//
// It fails closed: what cannot be found out about a new pod keeps it waiting.
// It refuses rules about who belongs to the mesh (cni/enrol) and everything in
// the kernel (cni/members). The cni package calls it.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/cni/handoff"
	"github.com/ambit-mesh/ambit/cni/members"
)

// Kube is the API that the agent needs: get, list and watch pods and
// namespaces, patch pods/status, create and patch events.
type Kube = kubernetes.Interface

// Config is what New needs; all is required but where a zero value is named.
type Config struct {
	// Kube is the cluster's API.
	Kube Kube
	// Node is the name of this node.
	Node string
	// Exclude are namespaces that are never enrolled.
	Exclude []string
	// NoDNS leaves the DNS queries of pods alone that do not ask by annotation.
	NoDNS bool
	// Leaving releases every pod instead, for uninstalling.
	Leaving bool
	// LeaveLimit bounds how long captured connections are waited for when
	// Leaving; 0 is for ever.
	LeaveLimit time.Duration
	// Proc is where the node's processes are; empty is /proc.
	Proc string
	// ControlPlane is the namespace of the control plane, which is asked whether
	// the peers of a released pod have heard of it; empty: nobody is asked.
	ControlPlane string
	// ControlPlanePort is where its pods answer; 0 is 8080.
	ControlPlanePort uint16
	// LookEvery is how often the kernel is compared with what is wished; 0 is
	// 10 seconds.
	LookEvery time.Duration
	// Keeper and Ztunnels do what is decided.
	Keeper   *members.Keeper
	Ztunnels *handoff.Pods
	// Counts receives what happens; nil counts nothing.
	Counts *Counts
	// Log receives state changes.
	Log *slog.Logger
}

// Agent is the node agent.
type Agent struct {
	cfg Config
	log *slog.Logger

	factories  []informers.SharedInformerFactory
	pods       cache.Indexer
	namespaces corelisters.NamespaceLister
	synced     []cache.InformerSynced
	queue      workqueue.TypedRateLimitingInterface[string]
	events     record.EventRecorder
	broadcast  record.EventBroadcaster

	locks     keyed // one call a pod to the keeper
	withdrawn withdrawn
	said      said
	seen      seen
}

// byUID indexes pods by UID, which is what queue and keeper know them by.
const byUID = "uid"

// New makes an agent that does nothing until Run.
func New(cfg Config) (*Agent, error) {
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.ControlPlanePort == 0 {
		cfg.ControlPlanePort = 8080
	}
	if cfg.LookEvery == 0 {
		cfg.LookEvery = 10 * time.Second
	}
	a := &Agent{cfg: cfg, log: cfg.Log.With("component", "agent")}
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](20*time.Millisecond, 5*time.Second)
	a.queue = workqueue.NewTypedRateLimitingQueue[string](limiter)
	if err := a.watchPods(); err != nil {
		return nil, err
	}
	if err := a.watchNamespaces(); err != nil {
		return nil, err
	}
	a.record()
	return a, nil
}

// workers is how many pods are worked on at once; one that waits for ztunnel
// holds one.
const workers = 8

// Run learns what there is, takes over what runs already, calls begun, and
// works until ctx ends. It returns when everything has stopped. Only after
// begun may ztunnels connect.
func (a *Agent) Run(ctx context.Context, begun func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer func() {
		cancel()
		a.queue.ShutDown()
		all.Wait()
		for _, f := range a.factories {
			f.Shutdown()
		}
		a.broadcast.Shutdown()
	}()
	for _, f := range a.factories {
		f.Start(ctx.Done())
	}
	if !cache.WaitForCacheSync(ctx.Done(), a.synced...) {
		return fmt.Errorf("listing pods and namespaces: %w", context.Cause(ctx))
	}
	if err := a.restore(); err != nil {
		return err
	}
	begun()
	for range workers {
		all.Go(func() { a.work(ctx) })
	}
	all.Go(func() { a.lookRound(ctx) })
	return a.cfg.Keeper.Watch(ctx)
}

func (a *Agent) work(ctx context.Context) {
	for {
		uid, end := a.queue.Get()
		if end {
			return
		}
		again, err := a.reconcile(ctx, uid)
		switch {
		case err != nil:
			a.log.Warn("working on a pod; will try again", "uid", uid, "error", err)
			a.queue.AddRateLimited(uid)
		case again > 0:
			a.queue.Forget(uid)
			a.queue.AddAfter(uid, again)
		default:
			a.queue.Forget(uid)
		}
		a.queue.Done(uid)
	}
}

// lookRound has every pod looked at again and again: those that are held, whose
// rules may have been tampered with, and those that should be.
func (a *Agent) lookRound(ctx context.Context) {
	tick := time.NewTicker(a.cfg.LookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.lookAtNode()
		for _, uid := range a.cfg.Keeper.UIDs() {
			a.queue.Add(uid)
		}
		for _, o := range a.pods.List() {
			a.queue.Add(string(o.(*corev1.Pod).UID))
		}
	}
}

func (a *Agent) lookAtNode() {
	if err := a.cfg.Keeper.LookAtNode(); err != nil {
		a.log.Warn("looking at the node; will try again", "error", err)
	}
}

// Mended counts what the keeper has mended, and says it on the pod.
func (a *Agent) Mended(m members.Mending) {
	a.cfg.Counts.mendedRules(m)
	if m.UID != "" {
		a.seen.looked(m.UID, m.Drift, nil)
	}
	if pod := a.pod(m.UID); pod != nil {
		a.warn(pod, reasonMended, "the mesh's rules in the pod had changed and are mended: "+strings.Join(m.Drift, "; "))
	}
}

// decide judges a pod as things are known now.
func (a *Agent) decide(pod *corev1.Pod, namespace *corev1.Namespace) enrol.Decision {
	if a.cfg.Leaving {
		return enrol.Decision{Reason: "the mesh is being uninstalled"}
	}
	return enrol.Decide(pod, namespace, a.cfg.Exclude)
}

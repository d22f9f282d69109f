package kube

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Parameters follows the ConfigMaps that Gateways name in parametersRef, each by
// itself: of all others nothing is read.
type Parameters struct {
	client kubernetes.Interface
	queue  *feed.Queue
	log    *slog.Logger

	changed chan struct{} // capacity 1
	mu      sync.Mutex
	wanted  map[objects.Key]bool
}

// NewParameters makes a follower of none.
func NewParameters(c kubernetes.Interface, q *feed.Queue, log *slog.Logger) *Parameters {
	return &Parameters{client: c, queue: q, log: log, changed: make(chan struct{}, 1)}
}

// Want replaces the ConfigMaps that are followed. It never waits.
func (p *Parameters) Want(all []objects.Key) {
	next := map[objects.Key]bool{}
	for _, k := range all {
		next[k] = true
	}
	p.mu.Lock()
	p.wanted = next
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Run follows them until ctx ends.
func (p *Parameters) Run(ctx context.Context) error {
	running := map[objects.Key]func(){}
	defer func() {
		for _, stop := range running {
			stop()
		}
	}()
	for {
		p.mu.Lock()
		wanted := p.wanted
		p.mu.Unlock()
		for k, stop := range running {
			if !wanted[k] {
				stop()
				delete(running, k)
				p.queue.Put(objects.Ref{Kind: objects.KindConfigMap, Key: k}, nil)
			}
		}
		for k := range wanted {
			if running[k] == nil {
				stop, err := p.follow(ctx, k)
				if err != nil {
					return err
				}
				running[k] = stop
			}
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// follow watches one ConfigMap until stop, which waits for the end.
func (p *Parameters) follow(ctx context.Context, k objects.Key) (stop func(), err error) {
	ref := objects.Ref{Kind: objects.KindConfigMap, Key: k}
	put := func(object any, gone bool) {
		if cm, ok := object.(*corev1.ConfigMap); ok && cm.Name == k.Name {
			if gone {
				p.queue.Put(ref, nil)
			} else {
				p.queue.Put(ref, cm)
			}
		}
	}
	i := named(p.client, k.Namespace, k.Name).Core().V1().ConfigMaps().Informer()
	if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { put(o, false) }, UpdateFunc: func(_, o any) { put(o, false) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			put(o, true)
		},
	}); err != nil {
		return nil, fmt.Errorf("watching ConfigMap %s: %w", k, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); i.RunWithContext(ctx) }()
	p.log.Debug("following a Gateway's parameters", "configmap", k.String())
	return func() { cancel(); <-done }, nil
}

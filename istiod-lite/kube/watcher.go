package kube

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/provision"
)

// WatcherConfig configures a Watcher; all fields but Seen must be set.
type WatcherConfig struct {
	Clients Clients
	Queue   *feed.Queue
	// Namespace is where ConfigMap "istio" is.
	Namespace string
	// Mesh is the settings below those of the ConfigMap.
	Mesh   objects.MeshConfig
	Logger *slog.Logger
	// Seen, if set, is told of every object before it is queued; nil means that
	// it is gone. It must not wait.
	Seen func(ref objects.Ref, object any)
}

// Watcher keeps a queue fed with the objects of a cluster.
type Watcher struct {
	cfg    WatcherConfig
	strip  *stripper
	synced chan struct{}
}

// NewWatcher makes a watcher; nothing is watched before Run.
func NewWatcher(cfg WatcherConfig) *Watcher {
	return &Watcher{cfg: cfg, strip: newStripper(), synced: make(chan struct{})}
}

// Synced is closed once everything that was there has been queued, of every
// custom kind that is defined too: a mesh that has not read its policies must
// not serve.
func (w *Watcher) Synced() <-chan struct{} { return w.synced }

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	custom := newCustom(ctx, w)
	defer custom.wait()
	var synced []cache.InformerSynced
	for _, i := range w.informers() {
		reg, err := w.follow(i, w.queueing())
		if err != nil {
			return err
		}
		synced = append(synced, reg.HasSynced)
		running.Go(func() { i.RunWithContext(ctx) })
	}
	crds, err := custom.informer()
	if err != nil {
		return err
	}
	running.Go(func() { crds.RunWithContext(ctx) })
	synced = append(synced, custom.known.HasSynced)
	if cache.WaitForCacheSync(ctx.Done(), synced...) && cache.WaitForCacheSync(ctx.Done(), custom.synced) {
		close(w.synced)
		<-ctx.Done()
	}
	return nil
}

// informers are those of the kinds that every cluster has.
func (w *Watcher) informers() []cache.SharedIndexInformer {
	all := informers.NewSharedInformerFactoryWithOptions(w.cfg.Clients.Kube, 0, informers.WithTransform(w.strip.strip))
	// Pods that ended have no address any more, and there can be many.
	live := informers.NewSharedInformerFactoryWithOptions(w.cfg.Clients.Kube, 0, informers.WithTransform(w.strip.strip),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.AndSelectors(
				fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
				fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed))).String()
		}))
	mesh := named(w.cfg.Clients.Kube, w.cfg.Namespace, meshName)
	defaults := informers.NewSharedInformerFactoryWithOptions(w.cfg.Clients.Kube, 0, informers.WithTransform(w.strip.strip), informers.WithNamespace(w.cfg.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = provision.LabelDefaults }))
	w.cfg.Queue.Put(objects.Ref{Kind: objects.KindMesh}, w.cfg.Mesh)
	return []cache.SharedIndexInformer{
		live.Core().V1().Pods().Informer(),
		all.Core().V1().Services().Informer(),
		all.Core().V1().Nodes().Informer(),
		all.Core().V1().Namespaces().Informer(),
		all.Discovery().V1().EndpointSlices().Informer(),
		mesh.Core().V1().ConfigMaps().Informer(),
		defaults.Core().V1().ConfigMaps().Informer(),
	}
}

// follow adds a handler, and reports what keeps the informer from watching.
func (w *Watcher) follow(i cache.SharedIndexInformer, h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	err := i.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if !errors.Is(err, context.Canceled) {
			w.cfg.Logger.Warn("watching interrupted", "reason", err)
		}
	})
	if err != nil {
		return nil, err
	}
	return i.AddEventHandler(h)
}

// queueing puts every event into the queue.
func (w *Watcher) queueing() cache.ResourceEventHandler {
	put := func(object any) { w.put(object, false) }
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    put,
		UpdateFunc: func(_, object any) { put(object) },
		DeleteFunc: func(object any) { w.put(object, true) },
	}
}

func (w *Watcher) put(object any, gone bool) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	if cm, ok := object.(*corev1.ConfigMap); ok && cm.Labels[provision.LabelDefaults] == "" {
		if cm.Name == meshName {
			w.putMesh(cm, gone)
		}
		return
	}
	ref, ok := objects.RefOf(object)
	if !ok {
		w.cfg.Logger.Error("watched object of no known kind", "object", object)
		return
	}
	if gone {
		object = nil
	}
	if w.cfg.Seen != nil {
		w.cfg.Seen(ref, object)
	}
	w.cfg.Queue.Put(ref, object)
}

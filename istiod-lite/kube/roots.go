package kube

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// The ConfigMap that tells every namespace the mesh's roots.
const (
	rootName        = "istio-ca-root-cert"
	revocationsName = "istio-ca-crl"
	rootKey         = "root-cert.pem"
	rootLabel       = "istio.io/config"
	rootLabelValue  = "true"
)

// noRoot are namespaces that run no workloads.
var noRoot = map[string]bool{"kube-public": true, "kube-node-lease": true, "local-path-storage": true}

// Roots keeps what the mesh must know of its authority in a ConfigMap of every
// namespace, and puts it back when somebody edits or deletes one.
type Roots struct {
	client kubernetes.Interface
	// name is the ConfigMap's, key that of the PEM text in it.
	name, key string
	bundle    func() []byte
	changed   <-chan struct{} // gets a value when bundle has
	log       *slog.Logger
}

// RootsOf tells the root certificates. changed gets a value when they have; it
// may be nil.
func RootsOf(c kubernetes.Interface, bundle func() []byte, changed <-chan struct{}, log *slog.Logger) *Roots {
	return &Roots{c, rootName, rootKey, bundle, changed, log}
}

// RevocationsOf tells the lists of revoked certificates, to proxies that read
// them from a file. Without a list there is no ConfigMap, or an empty one if
// there was a list before.
func RevocationsOf(c kubernetes.Interface, lists func() []byte, changed <-chan struct{}, log *slog.Logger) *Roots {
	return &Roots{c, revocationsName, revocationKey, lists, changed, log}
}

// Run works until ctx ends.
func (r *Roots) Run(ctx context.Context) error {
	q := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 30*time.Second))
	spaces := informers.NewSharedInformerFactoryWithOptions(r.client, 0, informers.WithTransform(newStripper().strip)).Core().V1().Namespaces()
	maps := named(r.client, metav1.NamespaceAll, r.name).Core().V1().ConfigMaps()
	ofNamespace := func(o any) {
		if n, ok := o.(*corev1.Namespace); ok {
			q.Add(n.Name)
		}
	}
	ofMap := func(o any) {
		if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = last.Obj
		}
		if m, ok := o.(*corev1.ConfigMap); ok && m.Name == r.name {
			q.Add(m.Namespace)
		}
	}
	if _, err := spaces.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: ofNamespace, UpdateFunc: func(_, o any) { ofNamespace(o) },
	}); err != nil {
		return fmt.Errorf("watching namespaces: %w", err)
	}
	if _, err := maps.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, o any) { ofMap(o) }, DeleteFunc: ofMap,
	}); err != nil {
		return fmt.Errorf("watching configmaps %s: %w", r.name, err)
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { spaces.Informer().RunWithContext(ctx) })
	running.Go(func() { maps.Informer().RunWithContext(ctx) })
	running.Go(func() { r.shutDown(ctx, q, spaces.Lister()) })
	if !cache.WaitForCacheSync(ctx.Done(), spaces.Informer().HasSynced, maps.Informer().HasSynced) {
		return nil
	}
	for {
		ns, stop := q.Get()
		if stop {
			return nil
		}
		if err := r.reconcile(ctx, ns, spaces.Lister(), maps.Lister()); err != nil && ctx.Err() == nil {
			r.log.Warn("configmap not written, trying again", "configmap", r.name, "namespace", ns, "reason", err)
			q.AddRateLimited(ns)
		} else {
			q.Forget(ns)
		}
		q.Done(ns)
	}
}

// shutDown queues every namespace when the roots changed, and ends the queue
// with ctx.
func (r *Roots) shutDown(ctx context.Context, q workqueue.TypedRateLimitingInterface[string], spaces corelisters.NamespaceLister) {
	defer q.ShutDown()
	for {
		select {
		case <-r.changed:
			all, _ := spaces.List(everything)
			for _, ns := range all {
				q.Add(ns.Name)
			}
		case <-ctx.Done():
			return
		}
	}
}

// reconcile makes one namespace's ConfigMap what it should be.
func (r *Roots) reconcile(ctx context.Context, ns string, spaces corelisters.NamespaceLister, maps corelisters.ConfigMapLister) error {
	space, err := spaces.Get(ns)
	if err != nil || space.DeletionTimestamp != nil || noRoot[ns] {
		return nil
	}
	bundle := string(r.bundle())
	api := r.client.CoreV1().ConfigMaps(ns)
	have, err := maps.ConfigMaps(ns).Get(r.name)
	if apierrors.IsNotFound(err) && bundle == "" {
		return nil
	}
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: r.name, Namespace: ns, Labels: map[string]string{rootLabel: rootLabelValue}},
			Data:       map[string]string{r.key: bundle},
		}, metav1.CreateOptions{})
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		return err
	}
	if err != nil || have.Data[r.key] == bundle && have.Labels[rootLabel] == rootLabelValue {
		return err
	}
	want := have.DeepCopy()
	if want.Labels == nil {
		want.Labels = map[string]string{}
	}
	if want.Data == nil {
		want.Data = map[string]string{}
	}
	want.Labels[rootLabel], want.Data[r.key] = rootLabelValue, bundle
	_, err = api.Update(ctx, want, metav1.UpdateOptions{})
	return err
}

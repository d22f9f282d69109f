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
	rootName       = "istio-ca-root-cert"
	rootKey        = "root-cert.pem"
	rootLabel      = "istio.io/config"
	rootLabelValue = "true"
)

// noRoot are namespaces that run no workloads.
var noRoot = map[string]bool{"kube-public": true, "kube-node-lease": true, "local-path-storage": true}

// Roots keeps the root certificates in a ConfigMap of every namespace, and
// puts them back when somebody edits or deletes one.
type Roots struct {
	Client kubernetes.Interface
	// Bundle is the PEM text.
	Bundle func() []byte
	// Changed gets a value when Bundle has; it may be nil.
	Changed <-chan struct{}
	Logger  *slog.Logger
}

// Run works until ctx ends.
func (r *Roots) Run(ctx context.Context) error {
	q := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 30*time.Second))
	spaces := informers.NewSharedInformerFactoryWithOptions(r.Client, 0, informers.WithTransform(strip)).Core().V1().Namespaces()
	maps := named(r.Client, metav1.NamespaceAll, rootName).Core().V1().ConfigMaps()
	ofNamespace := func(o any) {
		if n, ok := o.(*corev1.Namespace); ok {
			q.Add(n.Name)
		}
	}
	ofMap := func(o any) {
		if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = last.Obj
		}
		if m, ok := o.(*corev1.ConfigMap); ok && m.Name == rootName {
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
		return fmt.Errorf("watching root certificates: %w", err)
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
			r.Logger.Warn("root certificate not written, trying again", "namespace", ns, "reason", err)
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
		case <-r.Changed:
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
	bundle := string(r.Bundle())
	api := r.Client.CoreV1().ConfigMaps(ns)
	have, err := maps.ConfigMaps(ns).Get(rootName)
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: rootName, Namespace: ns, Labels: map[string]string{rootLabel: rootLabelValue}},
			Data:       map[string]string{rootKey: bundle},
		}, metav1.CreateOptions{})
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		return err
	}
	if err != nil || have.Data[rootKey] == bundle && have.Labels[rootLabel] == rootLabelValue {
		return err
	}
	want := have.DeepCopy()
	if want.Labels == nil {
		want.Labels = map[string]string{}
	}
	if want.Data == nil {
		want.Data = map[string]string{}
	}
	want.Labels[rootLabel], want.Data[rootKey] = rootLabelValue, bundle
	_, err = api.Update(ctx, want, metav1.UpdateOptions{})
	return err
}

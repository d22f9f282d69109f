package agent

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// watchPods follows the pods of this node.
func (a *Agent) watchPods() error {
	factory := informers.NewSharedInformerFactoryWithOptions(a.cfg.Kube, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = "spec.nodeName=" + a.cfg.Node }),
		informers.WithTransform(withoutManagedFields))
	informer := factory.Core().V1().Pods().Informer()
	err := informer.AddIndexers(cache.Indexers{byUID: func(o any) ([]string, error) {
		pod, ok := o.(*corev1.Pod)
		if !ok {
			return nil, fmt.Errorf("a %T among pods", o)
		}
		return []string{string(pod.UID)}, nil
	}})
	if err != nil {
		return fmt.Errorf("indexing pods: %w", err)
	}
	enqueue := func(o any) {
		if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		if pod, ok := o.(*corev1.Pod); ok {
			a.queue.Add(string(pod.UID))
		}
	}
	handler, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue,
		UpdateFunc: func(old, now any) {
			enqueue(old) // a pod of one name may have been replaced by another
			enqueue(now)
		},
		DeleteFunc: enqueue,
	})
	if err != nil {
		return fmt.Errorf("watching pods: %w", err)
	}
	a.pods = informer.GetIndexer()
	a.factories = append(a.factories, factory)
	a.synced = append(a.synced, handler.HasSynced)
	return nil
}

// watchNamespaces follows all namespaces; a changed mode concerns every pod in
// one.
func (a *Agent) watchNamespaces() error {
	factory := informers.NewSharedInformerFactoryWithOptions(a.cfg.Kube, 0, informers.WithTransform(withoutManagedFields))
	namespaces := factory.Core().V1().Namespaces()
	handler, err := namespaces.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			if ns, ok := o.(*corev1.Namespace); ok {
				a.enqueueNamespace(ns.Name)
			}
		},
		UpdateFunc: func(old, now any) {
			before, ok := old.(*corev1.Namespace)
			after, ok2 := now.(*corev1.Namespace)
			if ok && ok2 && saysOtherwise(before, after) {
				a.enqueueNamespace(after.Name)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watching namespaces: %w", err)
	}
	a.namespaces = namespaces.Lister()
	a.factories = append(a.factories, factory)
	a.synced = append(a.synced, handler.HasSynced)
	return nil
}

// saysOtherwise reports whether labels changed that its pods go by.
func saysOtherwise(before, after *corev1.Namespace) bool {
	for _, label := range []string{enrol.ModeLabel, mesh.DatagramsLabel} {
		if before.Labels[label] != after.Labels[label] {
			return true
		}
	}
	return false
}

func (a *Agent) enqueueNamespace(name string) {
	for _, o := range a.pods.List() {
		if pod, ok := o.(*corev1.Pod); ok && pod.Namespace == name {
			a.queue.Add(string(pod.UID))
		}
	}
}

// pod finds a pod of this node; nil if there is none.
func (a *Agent) pod(uid string) *corev1.Pod {
	found, err := a.pods.ByIndex(byUID, uid)
	if err != nil || len(found) == 0 {
		return nil
	}
	return found[0].(*corev1.Pod)
}

// record prepares for telling users, by events on their pods.
func (a *Agent) record() {
	a.broadcast = record.NewBroadcaster()
	a.broadcast.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: a.cfg.Kube.CoreV1().Events("")})
	a.events = a.broadcast.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "ambit-cni", Host: a.cfg.Node})
}

// The reasons of events.
const (
	reasonWaiting = "MeshWaiting"
	reasonMended  = "MeshRulesMended"
	reasonNoDNS   = "MeshDNSPortTaken"
)

// warn says something on a pod.
func (a *Agent) warn(pod *corev1.Pod, reason, text string) {
	a.events.Event(pod, corev1.EventTypeWarning, reason, text)
}

// withoutManagedFields saves memory.
func withoutManagedFields(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}

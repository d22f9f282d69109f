package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/provision"
)

// provisionManager owns the fields that a plan gives.
const provisionManager = "ambit-provision"

// provisioned are the kinds that make up waypoints.
var provisioned = map[string]schema.GroupVersionResource{
	"ServiceAccount":          {Version: "v1", Resource: "serviceaccounts"},
	"Service":                 {Version: "v1", Resource: "services"},
	"Deployment":              {Group: "apps", Version: "v1", Resource: "deployments"},
	"HorizontalPodAutoscaler": {Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"},
	"PodDisruptionBudget":     {Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"},
}

// claimed are the kinds of which the mesh makes objects that are missing, and
// then leaves them alone.
var claimed = map[string]schema.GroupVersionResource{
	"Gateway":      {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"},
	"GatewayClass": {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"},
	"XMesh":        {Group: "gateway.networking.x-k8s.io", Version: "v1alpha1", Resource: "xmeshes"},
}

// Provisioner makes the cluster what a plan says: applies what it wants, puts
// back what somebody changed, and removes what was made here and is not wanted
// any more. What does not carry the label of things made here is never touched.
// Every replica may Want; only the one that Runs writes.
type Provisioner struct {
	clients Clients
	log     *slog.Logger

	// hold is how long a Gateway of the mesh's own stays when it is idle.
	hold time.Duration

	mu     sync.Mutex
	wanted map[part]*unstructured.Unstructured // nil until the first Want
	held   map[objects.Key]bool                // Gateways whose objects stay as they are
	idle   map[part]idleness
	queue  workqueue.TypedRateLimitingInterface[part] // nil unless running
}

// idleness is since when nobody needs an object, as this replica saw it.
type idleness struct {
	uid   types.UID
	since time.Time
}

// idleHold lets routes come and go without their waypoint.
const idleHold = 10 * time.Minute

// part names one object of a plan.
type part struct {
	kind string
	key  objects.Key
}

func (p part) String() string { return p.kind + " " + p.key.String() }

// NewProvisioner makes one that writes nothing before Run.
func NewProvisioner(c Clients, log *slog.Logger) *Provisioner {
	return &Provisioner{clients: c, log: log, hold: idleHold}
}

// Want replaces the plan. It never waits for the API server.
func (p *Provisioner) Want(plan provision.Plan) {
	next := map[part]*unstructured.Unstructured{}
	for _, o := range append(plan.Create, plan.Apply...) {
		next[partOf(o)] = o
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idleLocked(plan.Idle)
	p.held = map[objects.Key]bool{}
	for _, k := range plan.Hold {
		p.held[k] = true
	}
	if p.queue != nil {
		for k, o := range next {
			if !reflect.DeepEqual(o, p.wanted[k]) {
				p.queue.Add(k)
			}
		}
		for k := range p.wanted {
			if next[k] == nil {
				p.queue.Add(k)
			}
		}
	}
	p.wanted = next
}

// idleLocked takes note of what nobody needs, and looks at it again when it has
// been idle for long enough.
func (p *Provisioner) idleLocked(all []provision.Idle) {
	next := map[part]idleness{}
	for _, i := range all {
		k := part{"Gateway", i.Key}
		if was, ok := p.idle[k]; ok && was.uid == i.UID {
			next[k] = was
			continue
		}
		next[k] = idleness{i.UID, time.Now()}
		if p.queue != nil {
			p.queue.AddAfter(k, p.hold)
		}
	}
	p.idle = next
}

func partOf(o *unstructured.Unstructured) part {
	return part{o.GetKind(), objects.Key{Namespace: o.GetNamespace(), Name: o.GetName()}}
}

// Run works until ctx ends.
func (p *Provisioner) Run(ctx context.Context) error {
	q := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[part](100*time.Millisecond, 30*time.Second))
	defer context.AfterFunc(ctx, q.ShutDown)()
	var running sync.WaitGroup
	defer running.Wait()
	have := map[string]cache.SharedIndexInformer{}
	var synced []cache.InformerSynced
	for kind, resource := range provisioned {
		i := managedObjects(p.clients, resource)
		reg, err := i.AddEventHandler(queueParts(kind, q))
		if err != nil {
			return fmt.Errorf("watching what was provisioned: %w", err)
		}
		have[kind], synced = i, append(synced, reg.HasSynced)
		running.Go(func() { i.RunWithContext(ctx) })
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	p.start(q)
	defer p.stop()
	for {
		k, stop := q.Get()
		if stop {
			return nil
		}
		if err := p.reconcile(ctx, k, have); err != nil && ctx.Err() == nil {
			p.log.Warn("not provisioned, trying again", "object", k.String(), "reason", err)
			q.AddRateLimited(k)
		} else {
			q.Forget(k)
		}
		q.Done(k)
	}
}

func (p *Provisioner) start(q workqueue.TypedRateLimitingInterface[part]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = q
	for k := range p.wanted {
		q.Add(k)
	}
	for k, i := range p.idle {
		q.AddAfter(k, time.Until(i.since.Add(p.hold)))
	}
}

func (p *Provisioner) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = nil
}

// queueParts queues what appears, changes or goes. A status that changes is
// nobody's doing: only what has no generation is looked at with every event.
func queueParts(kind string, q workqueue.TypedRateLimitingInterface[part]) cache.ResourceEventHandler {
	add := func(object any) {
		if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = last.Obj
		}
		if m, ok := object.(metav1.Object); ok {
			q.Add(part{kind, objects.Key{Namespace: m.GetNamespace(), Name: m.GetName()}})
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: add, DeleteFunc: add,
		UpdateFunc: func(before, after any) {
			a, b := before.(metav1.Object), after.(metav1.Object)
			if b.GetGeneration() == 0 || a.GetGeneration() != b.GetGeneration() ||
				!reflect.DeepEqual(a.GetLabels(), b.GetLabels()) || !reflect.DeepEqual(a.GetAnnotations(), b.GetAnnotations()) ||
				!reflect.DeepEqual(a.GetOwnerReferences(), b.GetOwnerReferences()) {
				add(after)
			}
		},
	}
}

// reconcile brings one object to its wanted state.
func (p *Provisioner) reconcile(ctx context.Context, k part, have map[string]cache.SharedIndexInformer) error {
	p.mu.Lock()
	known, want := p.wanted != nil, p.wanted[k]
	idle, unused := p.idle[k]
	held := p.held[k.key] // what is made has its Gateway's name
	p.mu.Unlock()
	if resource, ok := claimed[k.kind]; ok {
		api := p.clients.Dynamic.Resource(resource).Namespace(k.key.Namespace)
		if unused && time.Since(idle.since) >= p.hold {
			p.log.Info("removing a waypoint that nobody needs", "gateway", k.key.String(), "since", idle.since)
			return remove(ctx, api, k, idle.uid)
		}
		return create(ctx, api, want)
	}
	var old metav1.Object
	if o, there, _ := have[k.kind].GetStore().GetByKey(k.key.String()); there {
		old = o.(metav1.Object)
	}
	api := p.clients.Dynamic.Resource(provisioned[k.kind]).Namespace(k.key.Namespace)
	switch {
	case want != nil:
		return p.apply(ctx, k, api, want, old)
	case known && !held && old != nil && madeHere(old):
		p.log.Info("removing what is not wanted any more", "object", k.String())
		return remove(ctx, api, k, old.GetUID())
	}
	return nil
}

// remove deletes one object, and no later one of the same name.
func remove(ctx context.Context, api dynamic.ResourceInterface, k part, uid types.UID) error {
	err := api.Delete(ctx, k.key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// madeHere tells by the label and the owner.
func madeHere(o metav1.Object) bool {
	owner := metav1.GetControllerOf(o)
	return o.GetDeletionTimestamp() == nil && o.GetLabels()[provision.LabelManaged] == provision.Managed &&
		owner != nil && owner.Kind == "Gateway"
}

// errNotOurs keeps a user's object of the same name from being taken over.
var errNotOurs = errors.New("an object of this name exists that does not belong to the waypoint: it is left alone")

func (p *Provisioner) apply(ctx context.Context, k part, api dynamic.ResourceInterface, want *unstructured.Unstructured, old metav1.Object) error {
	if old == nil {
		switch o, err := p.clients.Metadata.Resource(provisioned[k.kind]).Namespace(k.key.Namespace).Get(ctx, k.key.Name, getOptions); {
		case apierrors.IsNotFound(err):
			p.log.Info("provisioning", "object", k.String())
		case err != nil:
			return err
		case o.Labels[provision.LabelManaged] != provision.Managed:
			return errNotOurs
		}
	}
	_, err := api.Apply(ctx, k.key.Name, want, metav1.ApplyOptions{FieldManager: provisionManager, Force: true})
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

// create makes an object that is missing; one that is there is left as it is.
func create(ctx context.Context, api dynamic.ResourceInterface, want *unstructured.Unstructured) error {
	if want == nil {
		return nil
	}
	_, err := api.Create(ctx, want, metav1.CreateOptions{FieldManager: provisionManager})
	if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

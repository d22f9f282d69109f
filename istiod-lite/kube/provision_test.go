package kube

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/provision"
)

// shelf is an API server for what is provisioned: what is applied through the
// dynamic client is seen through the one for metadata.
type shelf struct {
	t       *testing.T
	clients Clients
	meta    *metadatafake.FakeMetadataClient
	mu      sync.Mutex
	fail    int         // this many next applications
	foreign int         // applications to an object that is not ours
	uids    []types.UID // of deletions, as preconditions
}

func newShelf(t *testing.T) *shelf {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	s := &shelf{t: t, meta: metadatafake.NewSimpleMetadataClient(scheme)}
	d := dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())
	d.PrependReactor("patch", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, s.apply(a.(k8stesting.PatchActionImpl))
	})
	d.PrependReactor("delete", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
		del := a.(k8stesting.DeleteActionImpl)
		s.mu.Lock()
		s.uids = append(s.uids, *del.DeleteOptions.Preconditions.UID)
		s.mu.Unlock()
		return true, nil, s.meta.Tracker().Delete(a.GetResource(), a.GetNamespace(), del.Name)
	})
	s.clients = Clients{Dynamic: d, Metadata: s.meta}
	return s
}

func (s *shelf) apply(a k8stesting.PatchActionImpl) error {
	if a.GetPatchType() != types.ApplyPatchType || a.PatchOptions.FieldManager != provisionManager || !*a.PatchOptions.Force {
		s.t.Errorf("patches %s as %q", a.GetPatchType(), a.PatchOptions.FieldManager)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail > 0 {
		s.fail--
		return errors.New("not now")
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(a.GetPatch()); err != nil {
		s.t.Error(err)
	}
	if o.GetName() == "foreign" {
		s.foreign++
	}
	return s.putLocked(o)
}

// put stores an object as the API server would after somebody wrote it.
func (s *shelf) put(o *unstructured.Unstructured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.putLocked(o); err != nil {
		s.t.Error(err)
	}
}

func (s *shelf) putLocked(o *unstructured.Unstructured) error {
	m := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: o.GetAPIVersion(), Kind: o.GetKind()}}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, m); err != nil {
		return err
	}
	r := provisioned[o.GetKind()]
	old, err := s.meta.Tracker().Get(r, o.GetNamespace(), o.GetName())
	switch {
	case err != nil:
		return s.meta.Tracker().Create(r, m, o.GetNamespace())
	case reflect.DeepEqual(old, m): // nothing changes, so no watch is told
		return nil
	}
	return s.meta.Tracker().Update(r, m, o.GetNamespace())
}

// has reports whether an object is there as it should be.
func (s *shelf) has(o *unstructured.Unstructured) func() bool {
	return func() bool {
		have, err := s.meta.Tracker().Get(provisioned[o.GetKind()], o.GetNamespace(), o.GetName())
		return err == nil && reflect.DeepEqual(have.(*metav1.PartialObjectMetadata).Labels, o.GetLabels()) &&
			reflect.DeepEqual(have.(*metav1.PartialObjectMetadata).Annotations, o.GetAnnotations())
	}
}

func planned(kind, name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": kind,
		"metadata": map[string]any{
			"name": name, "namespace": "shop", "uid": name + "-uid",
			"labels":          map[string]any{provision.LabelManaged: provision.Managed},
			"ownerReferences": []any{map[string]any{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": name, "uid": "g", "controller": true}},
		},
	}}
}

func TestProvisioning(t *testing.T) {
	s := newShelf(t)
	s.fail = 2
	w, foreign := planned("Service", "w"), planned("Service", "foreign")
	foreign.SetLabels(nil)
	s.put(foreign)
	p := NewProvisioner(s.clients, quiet)
	p.Want(provision.Plan{Apply: []*unstructured.Unstructured{w, planned("Service", "foreign")}}) // before leading: remembered
	stop := running(t, p.Run)
	eventually(t, "what was wanted before is applied, after refusals", s.has(w))
	changed := w.DeepCopy()
	changed.SetLabels(map[string]string{provision.LabelManaged: provision.Managed, "somebody": "was here"})
	s.put(changed)
	eventually(t, "a change by somebody is put right", s.has(w))
	if err := s.meta.Tracker().Delete(provisioned["Service"], "shop", "w"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what somebody deletes comes back", s.has(w))
	next := w.DeepCopy()
	next.SetAnnotations(map[string]string{"new": "wish"})
	p.Want(provision.Plan{Apply: []*unstructured.Unstructured{next}})
	eventually(t, "a new wish is applied", s.has(next))
	p.Want(provision.Plan{})
	eventually(t, "what is not wanted any more goes", func() bool { return !s.has(next)() })
	if !s.has(foreign)() || s.foreign > 0 {
		t.Error("an object of somebody else was touched")
	}
	if len(s.uids) != 1 || s.uids[0] != "w-uid" {
		t.Errorf("deleted %v: could have been a later object of the same name", s.uids)
	}
	stop()
	p.Want(provision.Plan{Apply: []*unstructured.Unstructured{w}})
	if s.has(w)() {
		t.Error("written although another leads")
	}
}

func TestNothingIsRemovedBeforeThePlanIsKnown(t *testing.T) {
	s := newShelf(t)
	old, last := planned("Deployment", "old"), planned("Deployment", "last")
	s.put(old)
	p := NewProvisioner(s.clients, quiet)
	running(t, p.Run)
	p.Want(provision.Plan{Apply: []*unstructured.Unstructured{old, last}})
	eventually(t, "the plan is followed", s.has(last))
	if len(s.uids) > 0 {
		t.Errorf("removed %v before knowing what is wanted", s.uids)
	}
}

func TestClaimsAreMadeOnceAndLeftAlone(t *testing.T) {
	s := newShelf(t)
	class := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": map[string]any{"name": "istio-waypoint"},
	}}
	get := func() error {
		_, err := s.clients.Dynamic.Resource(claimed["GatewayClass"]).Get(t.Context(), "istio-waypoint", metav1.GetOptions{})
		return err
	}
	p := NewProvisioner(s.clients, quiet)
	running(t, p.Run)
	p.Want(provision.Plan{Create: []*unstructured.Unstructured{class}})
	eventually(t, "the class is there", func() bool { return get() == nil })
	p.Want(provision.Plan{})
	p.Want(provision.Plan{Create: []*unstructured.Unstructured{class}}) // as when it has not been seen yet
	p.Want(provision.Plan{Apply: []*unstructured.Unstructured{planned("Service", "w")}})
	eventually(t, "the rest is done", s.has(planned("Service", "w")))
	if err := get(); err != nil {
		t.Errorf("a class that is not missing was removed: %v", err)
	}
}

func TestAnIdleWaypointStaysForAWhile(t *testing.T) {
	s := newShelf(t)
	var gone []string
	s.clients.Dynamic.(*dynamicfake.FakeDynamicClient).PrependReactor("delete", "gateways", func(a k8stesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		gone = append(gone, a.(k8stesting.DeleteActionImpl).Name+" "+string(*a.(k8stesting.DeleteActionImpl).DeleteOptions.Preconditions.UID))
		return true, nil, nil
	})
	removed := func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Join(gone, ", ")
	}
	idle := func(name, uid string) provision.Idle {
		return provision.Idle{Key: objects.Key{Namespace: "shop", Name: name}, UID: types.UID(uid)}
	}
	p := NewProvisioner(s.clients, quiet)
	p.hold = 100 * time.Millisecond
	p.Want(provision.Plan{Idle: []provision.Idle{idle("before", "1")}})
	running(t, p.Run)
	eventually(t, "it leads", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.queue != nil
	})
	began := time.Now()
	p.Want(provision.Plan{Idle: []provision.Idle{idle("before", "1"), idle("needed-again", "2")}})
	p.Want(provision.Plan{Idle: []provision.Idle{idle("before", "1")}})
	eventually(t, "what was idle before this replica led goes", func() bool { return removed() == "before 1" })
	p.Want(provision.Plan{Idle: []provision.Idle{idle("after", "3")}})
	eventually(t, "what is idle now goes", func() bool { return removed() == "before 1, after 3" })
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("what is idle now went within %s", took)
	}
}

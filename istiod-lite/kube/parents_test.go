package kube

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/rest"
	k8stesting "k8s.io/client-go/testing"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

var (
	routeRef = objects.Ref{Kind: objects.KindHTTPRoute, Key: objects.Key{Namespace: "shop", Name: "r"}}
	reviews  = translate.Parent{Kind: "Service", Name: "reviews", Port: 80}
	ratings  = translate.Parent{Kind: "Service", Name: "ratings", Namespace: "other", SectionName: "http"}
)

func routed(p translate.Parent, typ string, generation int64, ok bool) translate.Condition {
	c := translate.Condition{Object: routeRef, Parent: p, Generation: generation, Type: typ, Status: ok, Reason: "Yes", Message: "m"}
	if !ok {
		c.Reason = "No"
	}
	return c
}

func entry(controller string, ref map[string]any, conditions ...any) map[string]any {
	return map[string]any{"controllerName": controller, "parentRef": ref, "conditions": conditions}
}

func httpRoute(entries ...any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
		"metadata": map[string]any{"namespace": "shop", "name": "r", "uid": "u1", "resourceVersion": "7"},
		"spec": map[string]any{"parentRefs": []any{
			map[string]any{"group": "", "kind": "Service", "name": "reviews"},
			map[string]any{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"},
		}},
	}}
	if len(entries) > 0 {
		o.Object["status"] = map[string]any{"parents": entries}
	}
	return o
}

func TestParentsOfRoutes(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	const at, before = "2030-01-02T03:04:05Z", "2029-01-01T00:00:00Z"
	const a, r = translate.TypeAccepted, translate.TypeResolvedRefs
	toReviews := map[string]any{"group": "", "kind": "Service", "name": "reviews", "port": int64(80)}
	toRatings := map[string]any{"group": "", "kind": "Service", "name": "ratings", "namespace": "other", "sectionName": "http"}
	toFront := map[string]any{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}
	yes := func(typ, since string, generation int64) map[string]any {
		return wire(typ, "True", "Yes", "m", since, generation)
	}
	no := func(typ, since string, generation int64) map[string]any {
		return wire(typ, "False", "No", "m", since, generation)
	}
	theirs := entry("example.org/c", toFront, yes(a, before, 1))
	theirsOfOurParent := entry("example.org/c", toReviews, no(a, before, 1))
	note := yes("example.org/Note", before, 1)
	for _, tt := range []struct {
		sentence string
		have     *unstructured.Unstructured
		want     []translate.Condition
		next     []any
		changed  bool
	}{
		{"the first entry, with its group written though it is empty", httpRoute(), []translate.Condition{routed(reviews, a, 1, true)},
			[]any{entry(routeController, toReviews, yes(a, at, 1))}, true},
		{"nothing new", httpRoute(entry(routeController, toReviews, yes(a, before, 1))), []translate.Condition{routed(reviews, a, 1, true)},
			[]any{entry(routeController, toReviews, yes(a, before, 1))}, false},
		{"a route of others that we have nothing to say of", httpRoute(theirs), nil, []any{theirs}, false},
		{"a route that nobody says anything of", httpRoute(), nil, []any{}, false},
		{"the generation moves without the time of transition", httpRoute(entry(routeController, toReviews, yes(a, before, 1))), []translate.Condition{routed(reviews, a, 2, true)},
			[]any{entry(routeController, toReviews, yes(a, before, 2))}, true},
		{"a status that changes moves the time", httpRoute(entry(routeController, toReviews, yes(a, before, 1), yes(r, before, 1))), []translate.Condition{routed(reviews, a, 1, true), routed(reviews, r, 1, false)},
			[]any{entry(routeController, toReviews, yes(a, before, 1), no(r, at, 1))}, true},
		{"two parents keep the order in which they are written", httpRoute(), []translate.Condition{routed(ratings, a, 1, true), routed(reviews, a, 1, false), routed(reviews, r, 1, true)},
			[]any{entry(routeController, toRatings, yes(a, at, 1)), entry(routeController, toReviews, no(a, at, 1), yes(r, at, 1))}, true},
		{"another controller's entry stays where it is, of the same parent too", httpRoute(theirs, entry(routeController, toReviews, yes(a, before, 1)), theirsOfOurParent), []translate.Condition{routed(reviews, a, 2, true), routed(ratings, a, 2, true)},
			[]any{theirs, entry(routeController, toReviews, yes(a, before, 2)), theirsOfOurParent, entry(routeController, toRatings, yes(a, at, 2))}, true},
		{"a condition of another type stays in our entry", httpRoute(entry(routeController, toReviews, note, yes(a, before, 1))), []translate.Condition{routed(reviews, a, 1, false)},
			[]any{entry(routeController, toReviews, note, no(a, at, 1))}, true},
		{"a condition of ours that has nothing to say goes", httpRoute(entry(routeController, toReviews, yes(a, before, 1), yes(translate.TypePartiallyInvalid, before, 1))), []translate.Condition{routed(reviews, a, 1, true)},
			[]any{entry(routeController, toReviews, yes(a, before, 1))}, true},
		{"an entry goes with its reference", httpRoute(theirs, entry(routeController, toReviews, yes(a, before, 1)), entry(routeController, toRatings, yes(a, before, 1))), []translate.Condition{routed(ratings, a, 1, true)},
			[]any{theirs, entry(routeController, toRatings, yes(a, before, 1))}, true},
		{"the last entry goes, and the list stays", httpRoute(entry(routeController, toReviews, yes(a, before, 1))), nil, []any{}, true},
		{"two of ours for one parent become one", httpRoute(entry(routeController, toReviews, yes(a, before, 1)), entry(routeController, toReviews, no(a, before, 1))), []translate.Condition{routed(reviews, a, 1, true)},
			[]any{entry(routeController, toReviews, yes(a, before, 1))}, true},
		{"a Gateway's entry under our name is of another installation, as long as the route names it", httpRoute(entry(routeController, toFront, yes(a, before, 1))), []translate.Condition{routed(reviews, a, 1, true)},
			[]any{entry(routeController, toFront, yes(a, before, 1)), entry(routeController, toReviews, yes(a, at, 1))}, true},
		{"and goes when the route does not", httpRoute(entry(routeController, map[string]any{"name": "back"}, yes(a, before, 1))), nil, []any{}, true},
		{"what was said of a newer object is not taken back", httpRoute(entry(routeController, toReviews, yes(a, before, 3))), []translate.Condition{routed(reviews, a, 2, false)},
			[]any{entry(routeController, toReviews, yes(a, before, 3))}, false},
		{"a reference without group and kind is to a Gateway", httpRoute(entry(routeController, map[string]any{"name": "wp"}, no(a, before, 1))),
			[]translate.Condition{routed(translate.Parent{Group: gateway.GroupName, Kind: "Gateway", Name: "wp"}, a, 1, false)},
			[]any{entry(routeController, map[string]any{"group": gateway.GroupName, "kind": "Gateway", "name": "wp"}, no(a, before, 1))}, true},
	} {
		had := tt.have.DeepCopy()
		next, changed := parentsOf(parents, tt.have, tt.want, now)
		if d := cmp.Diff(tt.next, next); d != "" || changed != tt.changed {
			t.Errorf("%s: changed %v, want %v (-want +got):\n%s", tt.sentence, changed, tt.changed, d)
		}
		if d := cmp.Diff(had, tt.have); d != "" {
			t.Errorf("%s: what was read was changed:\n%s", tt.sentence, d)
		}
		// What was written once is not written again.
		again := tt.have.DeepCopy()
		again.Object["status"] = map[string]any{"parents": next}
		if _, changed := parentsOf(parents, again, tt.want, now.Add(time.Hour)); changed {
			t.Errorf("%s: would be written again", tt.sentence)
		}
	}
}

// whole64 reads JSON as the API machinery does: whole numbers are int64.
type whole64 struct{ fields map[string]any }

func (w *whole64) UnmarshalJSON(text []byte) error { return utiljson.Unmarshal(text, &w.fields) }

// routeServer is an API server with one route that refuses writes over
// versions that are not the newest.
type routeServer struct {
	mu      sync.Mutex
	version int
	reads   int
	writes  int
	clashes int
}

func (s *routeServer) client(t *testing.T, o *unstructured.Unstructured) *dynamicfake.FakeDynamicClient {
	kinds := map[schema.GroupVersionResource]string{listed[objects.KindHTTPRoute].resource: "HTTPRouteList"}
	c := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, o)
	c.PrependReactor("get", "*", func(k8stesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reads++
		return false, nil, nil
	})
	c.PrependReactor("patch", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		p := a.(k8stesting.PatchActionImpl)
		var patch struct {
			Metadata struct{ UID, ResourceVersion string }
			Status   whole64
		}
		if err := json.Unmarshal(p.GetPatch(), &patch); err != nil {
			t.Error(err)
		}
		if p.GetPatchType() != types.MergePatchType || p.GetSubresource() != "status" || patch.Metadata.UID != "u1" {
			t.Errorf("patches %s %q of %q", p.GetPatchType(), p.GetSubresource(), patch.Metadata.UID)
		}
		if patch.Metadata.ResourceVersion != fmt.Sprint(s.version) {
			s.clashes++
			return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "httproutes"}, p.Name, fmt.Errorf("version %s", patch.Metadata.ResourceVersion))
		}
		s.writes++
		now, err := c.Tracker().Get(p.GetResource(), p.GetNamespace(), p.Name)
		if err != nil {
			return true, nil, err
		}
		next := now.(*unstructured.Unstructured).DeepCopy()
		next.Object["status"] = patch.Status.fields
		s.version++
		next.SetResourceVersion(fmt.Sprint(s.version))
		return true, next, c.Tracker().Update(p.GetResource(), next, p.GetNamespace())
	})
	return c
}

func (s *routeServer) counts(reads, writes, clashes int) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.reads == reads && s.writes == writes && s.clashes == clashes
	}
}

// watchedRoute is the typed form that an informer gives.
func watchedRoute(t *testing.T, o *unstructured.Unstructured) *gateway.HTTPRoute {
	t.Helper()
	var r gateway.HTTPRoute
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func TestRouteStatusIsWrittenOverTheNewestVersionOnly(t *testing.T) {
	s := &routeServer{version: 7}
	client := s.client(t, httpRoute())
	c := NewConditions(client, quiet)
	newest := func() *unstructured.Unstructured {
		o, err := client.Tracker().Get(listed[objects.KindHTTPRoute].resource, "shop", "r")
		if err != nil {
			t.Fatal(err)
		}
		return o.(*unstructured.Unstructured)
	}
	running(t, c.Run)
	c.Seen(routeRef, watchedRoute(t, httpRoute()))
	c.Want([]translate.Condition{routed(reviews, translate.TypeAccepted, 1, true)})
	eventually(t, "the first is written over the watched version, without reading", s.counts(0, 1, 0))
	c.Want([]translate.Condition{routed(reviews, translate.TypeAccepted, 1, false)})
	eventually(t, "over a version that is not the newest any more it is read and written again", s.counts(1, 2, 1))
	c.Seen(routeRef, watchedRoute(t, newest()))
	c.Want([]translate.Condition{routed(reviews, translate.TypeAccepted, 1, true)})
	eventually(t, "once the watch has caught up, there is nothing to read", s.counts(1, 3, 1))

	wiped := newest().DeepCopy()
	theirs := entry("example.org/c", map[string]any{"name": "front"}, wire("Accepted", "True", "Fine", "", "2029-01-01T00:00:00Z", int64(1)))
	wiped.Object["status"] = map[string]any{"parents": []any{theirs}}
	if err := client.Tracker().Update(listed[objects.KindHTTPRoute].resource, wiped, "shop"); err != nil {
		t.Fatal(err)
	}
	c.Seen(routeRef, watchedRoute(t, wiped))
	eventually(t, "an entry that another writer dropped is written again, over what is read", s.counts(2, 4, 1))
	parents, _, _ := unstructured.NestedSlice(newest().Object, "status", "parents")
	if len(parents) != 2 || !cmp.Equal(parents[0], any(theirs)) {
		t.Errorf("the other writer's entry did not stay as it was: %v", parents)
	}
	c.Seen(routeRef, nil)
	if err := client.Tracker().Delete(listed[objects.KindHTTPRoute].resource, "shop", "r", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Want(nil)
	eventually(t, "a route that is gone is not written", s.counts(3, 4, 1))
}

func TestAnEarlierLeadersEntryGoesEvenIfNothingIsWanted(t *testing.T) {
	s := &routeServer{version: 7}
	stale := httpRoute(entry(routeController, map[string]any{"group": "", "kind": "Service", "name": "old"}, wire("Accepted", "True", "Yes", "m", "2029-01-01T00:00:00Z", int64(1))))
	c := NewConditions(s.client(t, stale), quiet)
	running(t, c.Run)
	c.Seen(routeRef, watchedRoute(t, stale))
	if !s.counts(0, 0, 0)() {
		t.Error("written before anything was translated")
	}
	c.Want(nil)
	eventually(t, "the entry is taken away", s.counts(0, 1, 0))
}

func TestManyStatusesAreWrittenAtOnce(t *testing.T) {
	arrived, all := make(chan struct{}, writers), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-all
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(httpRoute().Object)
	}))
	t.Cleanup(server.Close)
	client, err := dynamic.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	c := NewConditions(client, quiet)
	var want []translate.Condition
	for i := range writers {
		w := routed(reviews, translate.TypeAccepted, 1, true)
		w.Object.Key.Name = fmt.Sprint("r", i)
		c.Seen(w.Object, watchedRoute(t, httpRoute()))
		want = append(want, w)
	}
	running(t, c.Run)
	c.Want(want)
	for i := range writers {
		select {
		case <-arrived:
		case <-time.After(patience):
			t.Fatalf("only %d were written at once", i)
		}
	}
	close(all)
}

package kube

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	istiofake "istio.io/client-go/pkg/clientset/versioned/fake"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	k8stesting "k8s.io/client-go/testing"
	gatewayfake "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned/fake"
)

// The API server of these tests is client-go's in-memory one. What it cannot
// do (field selectors, server-side apply, token reviews) is checked on the
// cluster of the end-to-end tests.

// TestMain turns off the streaming form of lists, which the in-memory API
// servers of other modules than client-go do not know.
func TestMain(m *testing.M) {
	if err := os.Setenv("KUBE_FEATURE_WatchListClient", "false"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

var quiet = slog.New(slog.DiscardHandler)

// patience is how long tests wait for what must happen; it is generous.
const patience = 20 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come true: %s", what)
		}
	}
}

// running starts run and ends it with the test.
func running(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// apiServer is client-go's in-memory API server. Its watches tell only what
// comes after them, so tests wait until they are up before they change things.
type apiServer struct {
	Clients
	mu      sync.Mutex
	watches map[string]int // by resource
}

type watched interface {
	PrependWatchReactor(resource string, reaction k8stesting.WatchReactionFunc)
	Tracker() k8stesting.ObjectTracker
}

func fakes(objects ...runtime.Object) *apiServer {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		panic(err)
	}
	kube, istio, meta := fake.NewClientset(objects...), istiofake.NewSimpleClientset(), metadatafake.NewSimpleMetadataClient(scheme)
	gw := gatewayfake.NewClientset()
	s := &apiServer{
		Clients: Clients{Kube: kube, Istio: istio, Gateway: gw, Metadata: meta, Dynamic: dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())},
		watches: map[string]int{},
	}
	for _, c := range []watched{kube, istio, gw, meta} {
		c.PrependWatchReactor("*", func(a k8stesting.Action) (bool, watch.Interface, error) {
			w, err := c.Tracker().Watch(a.GetResource(), a.GetNamespace())
			s.mu.Lock()
			defer s.mu.Unlock()
			s.watches[a.GetResource().Resource]++
			return true, w, err
		})
	}
	return s
}

// watching waits until resources were watched n times.
func (s *apiServer) watching(t *testing.T, n int, resources ...string) {
	t.Helper()
	for _, r := range resources {
		eventually(t, r+" are watched", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.watches[r] >= n
		})
	}
}

func definition(name string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
	}
}

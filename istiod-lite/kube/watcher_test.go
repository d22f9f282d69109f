package kube

import (
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	api "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metadatafake "k8s.io/client-go/metadata/fake"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// seen follows a queue into a Set, as the control plane does.
type seen struct {
	t   *testing.T
	q   *feed.Queue
	set objects.Set
}

func (s *seen) holds(what string, ok func(objects.Set) bool) {
	s.t.Helper()
	eventually(s.t, what, func() bool {
		changes, _ := s.q.Take()
		if _, err := changes.Apply(&s.set); err != nil {
			s.t.Error(err)
		}
		return ok(s.set)
	})
}

func meshMap(text string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: meshName}, Data: map[string]string{meshKey: text}}
}

func watchAll(t *testing.T, c *apiServer) (*Watcher, *seen) {
	q := feed.NewQueue()
	w := NewWatcher(WatcherConfig{Clients: c.Clients, Queue: q, Namespace: "istio-system", Mesh: objects.MeshConfig{}.WithDefaults(), Logger: quiet})
	running(t, w.Run)
	return w, &seen{t: t, q: q}
}

func TestWatcherFollowsTheCluster(t *testing.T) {
	c := fakes(
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		meshMap("trustDomain: example.org"),
	)
	w, s := watchAll(t, c)
	<-w.Synced()
	// What was there before is all queued once it says so.
	changes, _ := s.q.Take()
	if _, err := changes.Apply(&s.set); err != nil {
		t.Fatal(err)
	}
	if len(s.set.Pods) != 1 || len(s.set.Namespaces) != 1 || s.set.Mesh.TrustDomain != "example.org" {
		t.Fatalf("synced with %v", s.set)
	}
	c.watching(t, 1, "pods")
	pods := c.Kube.CoreV1().Pods("shop")
	if _, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "db"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds("a new pod is seen", func(set objects.Set) bool { return len(set.Pods) == 2 })
	if err := pods.Delete(t.Context(), "front", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds("a deleted pod is gone", func(set objects.Set) bool { return len(set.Pods) == 1 })
}

func TestMeshSettings(t *testing.T) {
	c := fakes(meshMap("trustDomain: one.org"))
	w, s := watchAll(t, c)
	<-w.Synced()
	c.watching(t, 1, "configmaps", "namespaces")
	maps := c.Kube.CoreV1().ConfigMaps("istio-system")
	update := func(text string) {
		t.Helper()
		if _, err := maps.Update(t.Context(), meshMap(text), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	is := func(domain string) func(objects.Set) bool {
		return func(set objects.Set) bool { return set.Mesh.TrustDomain == domain }
	}
	s.holds("the settings are read", is("one.org"))
	update("trustDomain: two.org")
	s.holds("changed settings are read", is("two.org"))
	update("{ this is not YAML")
	update("trustDomain: [nor: this]")
	if _, err := c.Kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "later"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds("unreadable settings leave the last ones", func(set objects.Set) bool { return len(set.Namespaces) == 1 && is("two.org")(set) })
	if err := maps.Delete(t.Context(), meshName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds("without settings the defaults are back", is("cluster.local"))
}

func TestCustomKindsComeAndGo(t *testing.T) {
	c := fakes()
	w, s := watchAll(t, c)
	<-w.Synced() // although no custom kind is defined
	policies := c.Istio.SecurityV1().AuthorizationPolicies("shop")
	create := func(name string) {
		t.Helper()
		p := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: api.AuthorizationPolicy{}}
		if _, err := policies.Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	have := func(n int) func(objects.Set) bool {
		return func(set objects.Set) bool { return len(set.AuthorizationPolicies) == n }
	}
	crds := c.Metadata.Resource(crdResource).(metadatafake.MetadataClient)
	define := func() {
		t.Helper()
		if _, err := crds.CreateFake(definition("authorizationpolicies.security.istio.io"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.watching(t, 1, "customresourcedefinitions")
	create("first")
	define()
	s.holds("a kind that is defined later is read", have(1))
	c.watching(t, 1, "authorizationpolicies")
	create("second")
	s.holds("and followed", have(2))
	if err := crds.Delete(t.Context(), "authorizationpolicies.security.istio.io", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds("its objects go with its definition", have(0))
	define()
	s.holds("and come back with it", have(2))
}

func TestSyncedWaitsForDefinedKinds(t *testing.T) {
	c := fakes()
	crds := c.Metadata.Resource(crdResource).(metadatafake.MetadataClient)
	for name := range definitions {
		if _, err := crds.CreateFake(definition(name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		p := &security.PeerAuthentication{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		if _, err := c.Istio.SecurityV1().PeerAuthentications("shop").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w, s := watchAll(t, c)
	<-w.Synced()
	changes, _ := s.q.Take()
	if _, err := changes.Apply(&s.set); err != nil {
		t.Fatal(err)
	}
	if got := len(s.set.PeerAuthentications); got != 3 {
		t.Errorf("synced with %d of 3 policies: a mesh that serves now would be open", got)
	}
}

func TestStrippingLeavesWhatTheRulesRead(t *testing.T) {
	const text = `
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}, annotations: {a: b}}
spec: {podCIDR: 10.0.0.0/24, providerID: x}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}], images: [{names: [big], sizeBytes: 1}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: w}}
spec: {finalizers: [kubernetes]}
---
apiVersion: v1
kind: Pod
metadata:
  name: front-6f4d-x
  namespace: shop
  labels: {app: front, version: v1, pod-template-hash: 6f4d}
  annotations: {ambient.istio.io/redirection: enabled, kubectl.kubernetes.io/last-applied-configuration: "{}"}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: front-6f4d, controller: true, uid: u}]
  managedFields: [{manager: kubectl}]
spec:
  nodeName: n1
  serviceAccountName: front
  initContainers: [{name: side, image: i, restartPolicy: Always, ports: [{name: metrics, containerPort: 9090}]}]
  containers: [{name: c, image: i, env: [{name: A, value: b}], ports: [{name: http, containerPort: 8080, protocol: TCP}]}]
  volumes: [{name: v, emptyDir: {}}]
status:
  phase: Running
  podIP: 10.0.0.5
  podIPs: [{ip: 10.0.0.5}, {ip: "fd00::5"}]
  hostIP: 192.168.0.1
  conditions: [{type: Ready, status: "True"}]
  containerStatuses: [{name: c, ready: true, restartCount: 0, image: i, imageID: j}]
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], selector: {app: front}, ports: [{name: http, port: 80, targetPort: http}, {name: m, port: 90, targetPort: metrics}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: front}}, rules: [{from: [{source: {namespaces: [shop]}}]}]}
`
	whole, err := objects.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	stripped, err := objects.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range stripped.Pods {
		stripAll(t, o)
		if len(o.Spec.Volumes)+len(o.Spec.Containers[0].Env)+len(o.Status.ContainerStatuses)+len(o.ManagedFields) > 0 || o.Annotations[lastApplied] != "" {
			t.Errorf("keeps what nothing reads: %+v", o)
		}
	}
	for _, o := range stripped.Nodes {
		stripAll(t, o)
	}
	for _, o := range stripped.Namespaces {
		stripAll(t, o)
	}
	wantModel, wantConditions := translate.Translate(whole)
	gotModel, gotConditions := translate.Translate(stripped)
	if len(wantModel.Workloads) != 1 || len(wantModel.Policies) != 1 {
		t.Fatalf("the example is not read whole: %+v", wantModel)
	}
	if d := cmp.Diff(wantModel, gotModel, cmp.Exporter(exportAll)); d != "" {
		t.Errorf("stripping changes the model:\n%s", d)
	}
	if d := cmp.Diff(wantConditions, gotConditions); d != "" {
		t.Error(d)
	}
}

func TestPodsOfADeploymentShareWhatTheyHaveAlike(t *testing.T) {
	one := func(name, revision string) *corev1.Pod {
		yes := true
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: name, Labels: map[string]string{"app": "web", "version": revision},
				OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web", UID: types.UID(name), Controller: &yes}},
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: name, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}}}}},
		}
	}
	s := newStripper()
	a, b, c := one("a", "v1"), one("b", "v1"), one("c", "v2")
	for _, p := range []*corev1.Pod{a, b, c} {
		if _, err := s.strip(p); err != nil {
			t.Fatal(err)
		}
	}
	if &a.Spec.Containers[0] != &b.Spec.Containers[0] || &a.OwnerReferences[0] != &b.OwnerReferences[0] {
		t.Error("two pods of one template have containers and owners of their own")
	}
	if a.Labels["version"] != "v1" || b.Labels["version"] != "v1" || c.Labels["version"] != "v2" || c.Spec.Containers[0].Ports[0].ContainerPort != 80 {
		t.Errorf("sharing changed them: %v, %v, %v", a.Labels, b.Labels, c)
	}
}

// The first fills what the stripper remembers, the others come and go as in a
// namespace of jobs: each with labels, a node and an account of its own.
func TestPodsThatWentLeaveNothingInTheStripper(t *testing.T) {
	s := newStripper()
	alike := map[string]string{"app": "stays"}
	stays := s.texts(alike)
	pass := func(from, to int) {
		for i := from; i < to; i++ {
			name := fmt.Sprint("job-", i)
			if _, err := s.strip(&corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "shop", Name: name, Labels: map[string]string{"job": name},
					OwnerReferences: []metav1.OwnerReference{{Kind: "Job", Name: name}},
				},
				Spec: corev1.PodSpec{NodeName: name, ServiceAccountName: name, Containers: []corev1.Container{{Name: name}}},
			}); err != nil {
				t.Fatal(err)
			}
			if got := s.texts(map[string]string{"app": "stays"}); reflect.ValueOf(got).Pointer() != reflect.ValueOf(stays).Pointer() {
				t.Fatalf("what is asked for all the time was forgotten after %d pods", i)
			}
		}
	}
	const warm, changes, most = 2 * sharedAtOnce, 16 * sharedAtOnce, 50
	pass(0, warm)
	before := inUse()
	pass(warm, warm+changes)
	left := (float64(inUse()) - float64(before)) / changes
	if left > most {
		t.Errorf("each pod that went left %.0f bytes behind, at most %d are tolerated", left, most)
	}
	runtime.KeepAlive(s)
}

// inUse is what stays in memory.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func stripAll(t *testing.T, o any) {
	t.Helper()
	if _, err := newStripper().strip(o); err != nil {
		t.Fatal(err)
	}
}

// exportAll lets cmp look into netip values.
func exportAll(reflect.Type) bool { return true }

func TestWhatIsQueuedWasSeenBefore(t *testing.T) {
	c := fakes()
	var mu sync.Mutex
	last := map[objects.Ref]any{}
	q := feed.NewQueue()
	w := NewWatcher(WatcherConfig{
		Clients: c.Clients, Queue: q, Namespace: "istio-system", Logger: quiet,
		Seen: func(ref objects.Ref, object any) {
			mu.Lock()
			defer mu.Unlock()
			last[ref] = object
		},
	})
	running(t, w.Run)
	s := &seen{t: t, q: q}
	<-w.Synced()
	crds := c.Metadata.Resource(crdResource).(metadatafake.MetadataClient)
	c.watching(t, 1, "customresourcedefinitions")
	if _, err := crds.CreateFake(definition("httproutes.gateway.networking.k8s.io"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.watching(t, 1, "httproutes")
	routes := c.Gateway.GatewayV1().HTTPRoutes("shop")
	if _, err := routes.Create(t.Context(), &gateway.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "r", ResourceVersion: "7"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds("the route is queued", func(set objects.Set) bool { return len(set.HTTPRoutes) == 1 })
	mu.Lock()
	if r, ok := last[routeRef].(*gateway.HTTPRoute); !ok || r.ResourceVersion != "7" {
		t.Errorf("before it was queued, %v was seen", last[routeRef])
	}
	mu.Unlock()
	if err := routes.Delete(t.Context(), "r", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds("it is gone", func(set objects.Set) bool { return len(set.HTTPRoutes) == 0 })
	mu.Lock()
	defer mu.Unlock()
	if last[routeRef] != nil {
		t.Errorf("after it is gone, %v was seen", last[routeRef])
	}
}

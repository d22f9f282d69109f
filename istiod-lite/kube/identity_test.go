package kube

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/ambit-mesh/ambit/istiod-lite/ca"
)

func review(change func(*authv1.TokenReviewStatus)) authv1.TokenReviewStatus {
	s := authv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{"istio-ca"},
		User: authv1.UserInfo{Username: "system:serviceaccount:istio-system:ztunnel", Extra: map[string]authv1.ExtraValue{
			extraPodName: {"z1"}, extraPodUID: {"u1"}, extraNodeName: {"n1"},
		}},
	}
	change(&s)
	return s
}

func TestTokens(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*authv1.TokenReviewStatus)
		want   ca.Caller
		reason string
	}{
		{
			name: "a pod's token", change: func(*authv1.TokenReviewStatus) {},
			want: ca.Caller{Account: ca.Account{Namespace: "istio-system", Name: "ztunnel"}, PodName: "z1", PodUID: "u1", Node: "n1"},
		}, {
			name: "a token without a pod", change: func(s *authv1.TokenReviewStatus) { s.User.Extra = nil },
			want: ca.Caller{Account: ca.Account{Namespace: "istio-system", Name: "ztunnel"}},
		},
		{name: "an invalid token", change: func(s *authv1.TokenReviewStatus) { s.Authenticated = false }, reason: "not valid"},
		{name: "an expired token", change: func(s *authv1.TokenReviewStatus) { s.Error = "expired" }, reason: "expired"},
		{name: "another audience", change: func(s *authv1.TokenReviewStatus) { s.Audiences = []string{"vault"} }, reason: "not for"},
		{name: "an API server that ignores audiences", change: func(s *authv1.TokenReviewStatus) { s.Audiences = nil }, reason: "not for"},
		{name: "a user", change: func(s *authv1.TokenReviewStatus) { s.User.Username = "admin" }, reason: "not a service account"},
		{name: "a node", change: func(s *authv1.TokenReviewStatus) { s.User.Username = "system:node:istio-system:ztunnel" }, reason: "not a service account"},
		{name: "an account without a name", change: func(s *authv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:x:" }, reason: "not a service account"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := fake.NewClientset()
			c.PrependReactor("create", "tokenreviews", func(a k8stesting.Action) (bool, runtime.Object, error) {
				r := a.(k8stesting.CreateAction).GetObject().(*authv1.TokenReview)
				if r.Spec.Token != "secret" || !cmp.Equal(r.Spec.Audiences, []string{"istio-ca"}) {
					t.Errorf("asks for %+v", r.Spec)
				}
				r.Status = review(tt.change)
				return true, r, nil
			})
			got, err := (&Tokens{Client: c, Audiences: []string{"istio-ca"}}).Authenticate(t.Context(), "secret")
			if tt.reason != "" {
				if err == nil || !strings.Contains(err.Error(), tt.reason) {
					t.Errorf("got %v, want it refused as %q", err, tt.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func data(t *testing.T, organization string) (*ca.Material, map[string][]byte) {
	t.Helper()
	m, err := ca.NewRoot(organization, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Data()
	if err != nil {
		t.Fatal(err)
	}
	return m, d
}

func secret(name string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: name, ResourceVersion: "1"}, Data: data}
}

func TestReplicasThatStartTogetherShareOneRoot(t *testing.T) {
	c := fake.NewClientset()
	roots := make([][]byte, 8)
	var all sync.WaitGroup
	for i := range roots {
		all.Go(func() {
			course, err := NewBoard(&Keys{Client: c, Namespace: "istio-system", Organization: "x", Logger: quiet}).Load(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			roots[i] = course.Material.Cert.Raw
		})
	}
	all.Wait()
	for i, r := range roots {
		if len(r) == 0 || !bytes.Equal(r, roots[0]) {
			t.Errorf("replica %d signs with another root than replica 0", i)
		}
	}
}

func TestWhichKeyIsUsed(t *testing.T) {
	plugged, pluggedData := data(t, "plugged")
	own, ownData := data(t, "own")
	for _, tt := range []struct {
		name    string
		secrets []runtime.Object
		want    *ca.Material // nil: a new one
		refused bool
	}{
		{name: "none: one is made"},
		{name: "an empty Secret is filled", secrets: []runtime.Object{secret(ownSecret, nil)}},
		{name: "our own", secrets: []runtime.Object{secret(ownSecret, ownData)}, want: own},
		{name: "the plugged-in one first", secrets: []runtime.Object{secret(ownSecret, ownData), secret(pluggedSecret, pluggedData)}, want: plugged},
		{name: "a broken plugged-in one is never passed over", secrets: []runtime.Object{secret(ownSecret, ownData), secret(pluggedSecret, map[string][]byte{"ca-cert.pem": []byte("x")})}, refused: true},
		{name: "a broken one of ours is never replaced", secrets: []runtime.Object{secret(ownSecret, map[string][]byte{"ca-cert.pem": []byte("x")})}, refused: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := &Keys{Client: fake.NewClientset(tt.secrets...), Namespace: "istio-system", Organization: "x", Logger: quiet}
			m, err := k.load(t.Context())
			if tt.refused {
				if err == nil {
					t.Error("accepted")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.want != nil && !m.Cert.Equal(tt.want.Cert) {
				t.Errorf("signs with %v", m.Cert.Subject)
			}
			again, err := k.load(t.Context())
			if err != nil || !again.Cert.Equal(m.Cert) {
				t.Errorf("the next start signs with another: %v", err)
			}
		})
	}
}

func TestRootsAreInEveryNamespaceAndStay(t *testing.T) {
	space := func(name string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	ending := space("ending")
	ending.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	ending.Finalizers = []string{"kubernetes"}
	c := fakes(space("a"), space("b"), space("kube-public"), ending,
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "b", Name: rootName, Labels: map[string]string{"mine": "yes"}}, Data: map[string]string{"other": "kept", rootKey: "old"}})
	var mu sync.Mutex
	bundle, changed := "root 1", make(chan struct{}, 1)
	r := RootsOf(c.Kube, func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return []byte(bundle)
	}, changed, quiet)
	running(t, r.Run)
	has := func(ns, want string) func() bool {
		return func() bool {
			m, err := c.Kube.CoreV1().ConfigMaps(ns).Get(t.Context(), rootName, metav1.GetOptions{})
			return err == nil && m.Data[rootKey] == want && m.Labels[rootLabel] == rootLabelValue
		}
	}
	eventually(t, "every namespace has it", func() bool { return has("a", "root 1")() && has("b", "root 1")() })
	m, err := c.Kube.CoreV1().ConfigMaps("b").Get(t.Context(), rootName, metav1.GetOptions{})
	if err != nil || m.Data["other"] != "kept" || m.Labels["mine"] != "yes" {
		t.Errorf("what others wrote beside it is gone: %v %v", m, err)
	}
	c.watching(t, 1, "configmaps", "namespaces")
	if err := c.Kube.CoreV1().ConfigMaps("a").Delete(t.Context(), rootName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a deleted one comes back", has("a", "root 1"))
	m.Data[rootKey] = "evil"
	if _, err := c.Kube.CoreV1().ConfigMaps("b").Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an edited one is put right", has("b", "root 1"))
	if _, err := c.Kube.CoreV1().Namespaces().Create(t.Context(), space("new"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new namespace gets it", has("new", "root 1"))
	mu.Lock()
	bundle = "root 1 and 2"
	mu.Unlock()
	changed <- struct{}{}
	eventually(t, "new roots get everywhere", func() bool {
		return has("a", "root 1 and 2")() && has("b", "root 1 and 2")() && has("new", "root 1 and 2")()
	})
	for _, ns := range []string{"kube-public", "ending"} {
		if has(ns, "root 1")() || has(ns, "root 1 and 2")() {
			t.Errorf("namespace %s has it", ns)
		}
	}
}

func TestOneReplicaLeadsAndTheNextTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fake.NewClientset()
		var mu sync.Mutex
		leading := map[string]bool{}
		most := 0
		start := func(id string) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				done <- Lead(ctx, c, "istio-system", id, quiet, func(ctx context.Context) error {
					mu.Lock()
					leading[id] = true
					most = max(most, len(leading))
					mu.Unlock()
					<-ctx.Done()
					mu.Lock()
					delete(leading, id)
					mu.Unlock()
					return nil
				})
			}()
			return func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		who := func() map[string]bool {
			time.Sleep(30 * time.Second) // of the bubble's clock
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			out := map[string]bool{}
			for id := range leading {
				out[id] = true
			}
			return out
		}
		stopA := start("a")
		if d := cmp.Diff(map[string]bool{"a": true}, who()); d != "" {
			t.Fatal(d)
		}
		stopB := start("b")
		if d := cmp.Diff(map[string]bool{"a": true}, who()); d != "" {
			t.Fatal(d)
		}
		stopA()
		if d := cmp.Diff(map[string]bool{"b": true}, who()); d != "" {
			t.Fatal(d)
		}
		stopB()
		if most != 1 {
			t.Errorf("%d led at once", most)
		}
	})
}

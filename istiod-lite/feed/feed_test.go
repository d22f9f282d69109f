package feed

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

func pod(name, version string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: version}}
}

func ref(name string) objects.Ref {
	return objects.Ref{Kind: objects.KindPod, Key: objects.Key{Namespace: "shop", Name: name}}
}

func TestTheQueueHoldsTheNewestOfEachObject(t *testing.T) {
	q := NewQueue()
	for _, version := range []string{"1", "2", "3"} {
		q.Put(ref("a"), pod("a", version))
	}
	q.Put(ref("b"), pod("b", "1"))
	q.Put(ref("b"), nil)
	<-q.Changed()
	select {
	case <-q.Changed():
		t.Error("many changes are announced more than once")
	default:
	}
	changes, since := q.Take()
	if d := cmp.Diff(Changes{ref("a"): pod("a", "3"), ref("b"): nil}, changes); d != "" {
		t.Error(d)
	}
	if since.IsZero() || since.After(time.Now()) {
		t.Errorf("first change at %v", since)
	}
	if again, _ := q.Take(); len(again) > 0 {
		t.Errorf("taken twice: %v", again)
	}
}

func TestChangesAreApplied(t *testing.T) {
	set := objects.Set{}
	if _, err := set.Put(pod("old", "1")); err != nil {
		t.Fatal(err)
	}
	changed, err := Changes{ref("old"): nil, ref("new"): pod("new", "1"), ref("odd"): "not an object"}.Apply(&set)
	if err == nil || len(changed) != 2 {
		t.Errorf("changed %v with error %v; want two, and the odd one named", changed, err)
	}
	if len(set.Pods) != 1 || set.Pods[objects.Key{Namespace: "shop", Name: "new"}] == nil {
		t.Errorf("holds %v", set.Pods)
	}
}

func yaml(name, ip string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: shop}\nstatus: {podIP: " + ip + "}\n"
}

// write replaces a file in one step, as editors and kubectl cp do.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".tmp", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}

func TestADirectoryIsFollowed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pods.yaml")
	write(t, file, yaml("a", "10.0.0.1")+"---\n"+yaml("b", "10.0.0.2"))
	q := NewQueue()
	d := NewDirectory(dir, objects.MeshConfig{TrustDomain: "example.org"}, q, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	<-d.Synced()
	set := objects.Set{}
	holds := func(what string, want map[string]string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			changes, _ := q.Take()
			if _, err := changes.Apply(&set); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for k, p := range set.Pods {
				got[k.Name] = p.Status.PodIP
			}
			if cmp.Equal(want, got) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: holds %v, want %v", what, got, want)
			}
			select {
			case <-q.Changed():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	holds("at the start", map[string]string{"a": "10.0.0.1", "b": "10.0.0.2"})
	if set.Mesh.TrustDomain != "example.org" {
		t.Errorf("mesh settings %+v", set.Mesh)
	}
	write(t, filepath.Join(dir, "broken.yaml"), "kind: {")
	write(t, file, yaml("a", "10.0.0.9"))
	if err := os.Remove(filepath.Join(dir, "broken.yaml")); err != nil {
		t.Fatal(err)
	}
	holds("after an edit", map[string]string{"a": "10.0.0.9"})
	write(t, filepath.Join(dir, "more.yml"), yaml("c", "10.0.0.3"))
	holds("with another file", map[string]string{"a": "10.0.0.9", "c": "10.0.0.3"})
}

func TestADirectoryThatCannotBeReadIsAnErrorAtTheStart(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "broken.yaml"), "kind: {")
	for _, path := range []string{dir, filepath.Join(dir, "absent")} {
		if err := NewDirectory(path, objects.MeshConfig{}, NewQueue(), slog.New(slog.DiscardHandler)).Run(t.Context()); err == nil {
			t.Errorf("%s is accepted", path)
		}
	}
}

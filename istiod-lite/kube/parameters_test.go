package kube

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

func TestParametersAreFollowedWhileTheyAreNamed(t *testing.T) {
	cm := func(text string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "big"}, Data: map[string]string{"deployment": text}}
	}
	c := fakes(cm("one"), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "private"}})
	s := &seen{t: t, q: feed.NewQueue()}
	p := NewParameters(c.Kube, s.q, quiet)
	running(t, p.Run)
	key := objects.Key{Namespace: "shop", Name: "big"}
	says := func(text string) func(objects.Set) bool {
		return func(set objects.Set) bool {
			return set.ConfigMaps[key] != nil && set.ConfigMaps[key].Data["deployment"] == text
		}
	}
	p.Want([]objects.Key{key, {Namespace: "shop", Name: "missing"}})
	s.holds("one that is named is read", says("one"))
	c.watching(t, 2, "configmaps")
	if _, err := c.Kube.CoreV1().ConfigMaps("shop").Update(t.Context(), cm("two"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds("its changes are seen", says("two"))
	if len(s.set.ConfigMaps) != 1 {
		t.Errorf("read %v, which nobody named", s.set.ConfigMaps)
	}
	p.Want(nil)
	s.holds("one that is not named any more is forgotten", func(set objects.Set) bool { return len(set.ConfigMaps) == 0 })
}

package istiodlite

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

func TestPlacement(t *testing.T) {
	p := newPlacement(Config{}.kindOf)
	front := ca.Account{Namespace: "shop", Name: "front"}
	put := func(name, uid, node string, phase corev1.PodPhase) {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid)},
			Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: "front"}, Status: corev1.PodStatus{Phase: phase},
		}
		p.update(feed.Changes{{Kind: objects.KindPod, Key: objects.Key{Namespace: "shop", Name: name}}: pod})
	}
	drop := func(name string) {
		p.update(feed.Changes{{Kind: objects.KindPod, Key: objects.Key{Namespace: "shop", Name: name}}: nil})
	}
	runs := func(when, node string, want bool) {
		t.Helper()
		if got := p.Runs(node, front); got != want {
			t.Errorf("%s: runs on %q is %v, want %v", when, node, got, want)
		}
	}
	put("a", "1", "", corev1.PodPending)
	runs("not scheduled yet", "", false)
	put("a", "1", "n1", corev1.PodPending)
	runs("scheduled, starting", "n1", true)
	put("b", "2", "n1", corev1.PodRunning)
	put("a", "1", "n1", corev1.PodSucceeded)
	runs("one of two has ended", "n1", true)
	drop("b")
	runs("only one that ended is left", "n1", false)
	put("a", "3", "n2", corev1.PodRunning)
	runs("a pod of the same name elsewhere", "n1", false)
	runs("a pod of the same name elsewhere", "n2", true)
	if pod, ok := p.Pod("shop", "a"); !ok || pod.UID != "3" || pod.Node != "n2" {
		t.Errorf("knows %+v", pod)
	}
	drop("a")
	drop("a")
	runs("all are gone", "n2", false)
	if len(p.pods)+len(p.runs) > 0 {
		t.Errorf("still holds %v %v", p.pods, p.runs)
	}
}

package cni_test

import (
	"os"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/cni/netnstest"
)

// TestPodsThatComeAndGoLeaveNothingOpen: as many descriptors and goroutines as
// before, whether the runtime tells of the end or only the cluster does.
func TestPodsThatComeAndGoLeaveNothingOpen(t *testing.T) {
	w := newWorld(t)
	w.agent()
	z := netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	var nets []netnstest.Pod
	for range 6 {
		nets = append(nets, w.network())
	}
	open := func() int {
		t.Helper()
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	round := func(first int) {
		t.Helper()
		var pods []*corev1.Pod
		for i, net := range nets {
			pod := w.pod(first+i, "shop", nil)
			if err := w.add("ADD", pod, net); err != nil {
				t.Fatal(err)
			}
			pods = append(pods, pod)
		}
		for i, pod := range pods {
			if i%2 == 0 {
				if err := w.add("DEL", pod, nets[i]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.kube.CoreV1().Pods("shop").Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		w.eventually("all have left", func() bool { return len(z.Pods()) == 0 })
	}
	round(10) // what is opened once stays, such as connections to the API
	descriptors, goroutines := open(), runtime.NumGoroutine()
	for i := range 3 {
		round(100 * (i + 1))
	}
	w.eventually("as many descriptors and goroutines as before", func() bool {
		return open() <= descriptors && runtime.NumGoroutine() <= goroutines
	})
}

package cni_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/internal/heard"
)

// replica is a pod of the control plane whose proxies have heard, or not.
type replica struct{ heard, asked atomic.Bool }

func (r *replica) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	var v heard.Version
	if json.NewDecoder(q.Body).Decode(&v) == nil && v.Kind == "Pod" && v.Name == "p1" && q.URL.Path == heard.Path {
		r.asked.Store(true)
	}
	if !r.heard.Load() {
		w.WriteHeader(http.StatusAccepted)
	}
}

// controlPlane runs replicas that share a port.
func (w *world) controlPlane(replicas ...*replica) {
	w.t.Helper()
	w.cfg.ControlPlane = "istio-system"
	for i, r := range replicas {
		ip := fmt.Sprintf("127.0.0.%d", 2+i)
		l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(int(w.cfg.ControlPlanePort))))
		if err != nil {
			w.t.Fatal(err)
		}
		w.cfg.ControlPlanePort = uint16(l.Addr().(*net.TCPAddr).Port)
		s := httptest.NewUnstartedServer(r)
		s.Listener.Close()
		s.Listener = l
		s.Start()
		w.t.Cleanup(s.Close)
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("istiod-%d", i), Namespace: "istio-system", Labels: map[string]string{"app": "istiod"}},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip},
		}
		if _, err := w.kube.CoreV1().Pods("istio-system").Create(w.t.Context(), pod, metav1.CreateOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestNothingOfAPodThatLeavesGoesBeforeItsPeersHaveHeard, whichever replica of
// the control plane they are connected to.
func TestNothingOfAPodThatLeavesGoesBeforeItsPeersHaveHeard(t *testing.T) {
	w := newWorld(t)
	var first, second replica
	w.controlPlane(&first, &second)
	w.agent()
	a := w.network()
	pod := w.pod(1, "shop", &a)
	z := netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	w.eventually("enabled", func() bool { return w.annotation(pod) == enrol.Enabled })

	w.label("shop", "none")
	w.eventually("its peers are told", func() bool { return w.annotation(pod) == "" })
	first.heard.Store(true)
	w.eventually("both replicas are asked", func() bool { return first.asked.Load() && second.asked.Load() })
	for range 3 {
		second.asked.Store(false)
		w.eventually("and asked again", second.asked.Load)
		if way := w.way(a); way != "by 15001" || !w.present(a) || len(z.Pods()) != 1 {
			t.Fatalf("a connection went %q, rules %v, ztunnel serves %q: it left before its peers had heard", way, w.present(a), z.Pods())
		}
	}
	second.heard.Store(true)
	w.eventually("released", func() bool { return !w.present(a) && len(z.Pods()) == 0 })
	if way := w.way(a); way != "" {
		t.Errorf("connection went %q, want past ztunnel", way)
	}
}

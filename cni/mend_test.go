package cni_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/nft"
	"github.com/ambit-mesh/ambit/cni/probes"
	"github.com/ambit-mesh/ambit/cni/rules"
)

// record is a log that can be read while it is written.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) has(texts ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(strings.Split(r.b.String(), "\n"), func(line string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
	})
}

// TestWhatIsTakenAwayComesBackAndIsSaid: nobody looks for an hour, and yet the
// rules of a pod and of its node are back, and log, event and metric say so.
func TestWhatIsTakenAwayComesBackAndIsSaid(t *testing.T) {
	w := newWorld(t)
	var log record
	w.cfg.Log = slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), &log), nil))
	w.cfg.LookEvery = time.Hour
	w.cfg.MetricsAddr = freePort(t)
	w.agent()
	net := w.network()
	pod := w.pod(1, "shop", &net)
	netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	w.eventually("enabled", func() bool { return w.annotation(pod) == enrol.Enabled })

	if err := nft.Remove(net.NS, rules.TableName); err != nil {
		t.Fatal(err)
	}
	if err := nft.Remove(w.node, probes.TableName); err != nil {
		t.Fatal(err)
	}
	w.eventually("the log says what was missing in the pod", func() bool {
		return log.has("the pod's rules had changed", "pod=shop/p1", "is missing")
	})
	w.eventually("and on the node", func() bool { return log.has("the node's rules had changed", "istio-ambient-node is missing") })
	w.eventually("an event says it on the pod", func() bool {
		events, err := w.kube.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
			return e.Reason == "MeshRulesMended" && e.InvolvedObject.UID == pod.UID && strings.Contains(e.Message, "is missing")
		})
	})
	w.eventually("and metrics count it", func() bool {
		r, err := http.Get("http://" + w.cfg.MetricsAddr + "/metrics")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return err == nil && strings.Contains(string(b), `place="pod"} 1`) && strings.Contains(string(b), `place="node"} 1`)
	})
	if way := w.way(net); way != "by 15001" {
		t.Errorf("a connection of the mended pod went %q", way)
	}
}

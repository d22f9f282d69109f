package agent

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/internal/heard"
)

const (
	// heardLimit is how long the peers of a pod that leaves are waited for: by
	// then one that has not heard is cut off from the control plane.
	heardLimit = 30 * time.Second
	// askLimit bounds one round of questions.
	askLimit = 2 * time.Second
)

// controlPlanePods selects the control plane's pods.
const controlPlanePods = "app=istiod"

// heard reports whether every proxy knows that the pod does not accept HBONE
// any more. What cannot be found out is a no.
func (a *Agent) heard(ctx context.Context, pod *corev1.Pod) bool {
	if a.cfg.ControlPlane == "" {
		return true
	}
	version, ok := a.withdrawn.since(pod)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	yes, err := a.askAll(ctx, heard.Version{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, ResourceVersion: version,
	})
	if err != nil {
		a.log.Debug("asking whether a pod's peers have heard that it leaves", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
	return yes
}

// askAll asks every replica: each knows of its own proxies only.
func (a *Agent) askAll(ctx context.Context, v heard.Version) (bool, error) {
	replicas, err := a.cfg.Kube.CoreV1().Pods(a.cfg.ControlPlane).List(ctx, metav1.ListOptions{LabelSelector: controlPlanePods})
	if err != nil {
		return false, fmt.Errorf("listing the control plane's pods: %w", err)
	}
	asked, port := 0, strconv.Itoa(int(a.cfg.ControlPlanePort))
	for _, r := range replicas.Items {
		if r.Status.Phase != corev1.PodRunning || r.Status.PodIP == "" {
			continue
		}
		asked++
		if yes, err := heard.Ask(ctx, net.JoinHostPort(r.Status.PodIP, port), v); !yes || err != nil {
			return false, err
		}
	}
	return asked > 0, nil
}

// withdrawn is the first version of each pod that leaves in which its
// annotation was gone. The zero value is ready.
type withdrawn struct {
	mu       sync.Mutex
	versions map[string]string // by UID
}

func (w *withdrawn) note(uid, version string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.versions == nil {
		w.versions = map[string]string{}
	}
	w.versions[uid] = version
}

// since is that version; it may have come about before this agent began.
func (w *withdrawn) since(pod *corev1.Pod) (version string, ok bool) {
	uid := string(pod.UID)
	w.mu.Lock()
	version, ok = w.versions[uid]
	w.mu.Unlock()
	if ok || pod.Annotations[enrol.RedirectionAnnotation] != "" {
		return version, ok
	}
	w.note(uid, pod.ResourceVersion)
	return pod.ResourceVersion, true
}

func (w *withdrawn) forget(uid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.versions, uid)
}

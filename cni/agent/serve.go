package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/cni/event"
	"github.com/ambit-mesh/ambit/cni/podns"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// admitLimit bounds one answer to the plugin, which waits a little longer; a
// ztunnel that restarts is back by then.
const admitLimit = 25 * time.Second

// Handler answers the plugin.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+event.AddPath, a.serveAdd)
	mux.HandleFunc("POST "+event.DelPath, a.serveDel)
	return mux
}

func (a *Agent) serveAdd(w http.ResponseWriter, r *http.Request) {
	var add event.Add
	err := read(w, r, &add)
	if err != nil || add.PodName == "" || add.PodNamespace == "" || add.Netns == "" {
		a.answer(w, add, http.StatusBadRequest, fmt.Errorf("not a request of the plugin: %v", err))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), admitLimit)
	defer cancel()
	if err := a.admit(ctx, add); err != nil {
		a.answer(w, add, http.StatusInternalServerError, err)
		return
	}
	a.answer(w, add, http.StatusOK, nil)
}

// What the plugin sends is small and comes at once.
const (
	maxBody   = 64 << 10
	readLimit = 5 * time.Second
)

// read reads a request whole, within the bounds.
func read(w http.ResponseWriter, r *http.Request, into any) error {
	c := http.NewResponseController(w)
	if err := c.SetReadDeadline(time.Now().Add(readLimit)); err != nil {
		return fmt.Errorf("bounding a request: %w", err)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return fmt.Errorf("reading a request: %w", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("bounding a request: %w", err)
	}
	return json.Unmarshal(b, into)
}

func (a *Agent) answer(w http.ResponseWriter, add event.Add, status int, err error) {
	a.cfg.Counts.answered(status)
	a.seen.answered(add.PodNamespace+"/"+add.PodName, err)
	w.WriteHeader(status)
	if err != nil {
		a.log.Warn("a pod has to wait", "pod", add.PodNamespace+"/"+add.PodName, "error", err)
		fmt.Fprintln(w, err)
	}
}

// admit lets a pod start: at once if it does not belong to the mesh, else when
// it is captured. It asks the cluster itself, for what is watched may lag.
func (a *Agent) admit(ctx context.Context, add event.Add) error {
	if a.cfg.Leaving {
		return nil
	}
	pod, namespace, err := a.fetch(ctx, add.PodNamespace, add.PodName)
	if err != nil {
		return err
	}
	if add.PodUID != "" && add.PodUID != string(pod.UID) {
		return fmt.Errorf("pod %s/%s has been replaced meanwhile", add.PodNamespace, add.PodName)
	}
	d := a.decide(pod, namespace)
	if !d.Enrol {
		a.log.Debug("pod starts outside the mesh", "pod", add.PodNamespace+"/"+add.PodName, "reason", d.Reason)
		return nil
	}
	ips, err := add.Addresses()
	if err != nil {
		return err
	}
	uid := string(pod.UID)
	if err := a.locks.lock(ctx, uid); err != nil {
		return fmt.Errorf("waiting for earlier work on the pod: %w", err)
	}
	defer a.locks.release(uid)
	ns, err := a.namespaceOf(pod, add, ips)
	if err != nil {
		return err
	}
	a.cfg.Counts.reconciled("admit")
	if err := a.cfg.Keeper.Admit(ctx, a.podOf(pod, ips, d), ns, add.ContainerID); err != nil {
		return err
	}
	if err := a.annotate(ctx, pod, enrol.Enabled); err != nil {
		a.log.Warn("the pod is captured, but that cannot be said on it yet", "error", err)
	}
	a.queue.AddAfter(uid, soon)
	return nil
}

// namespaceOf opens the network namespace that the plugin names, if it is the
// pod's: it has the pod's address, and nobody else lives there.
func (a *Agent) namespaceOf(pod *corev1.Pod, add event.Add, ips []netip.Addr) (*linux.NetNS, error) {
	ns, err := podns.Open(add.Netns, ips)
	if err != nil {
		return nil, err
	}
	w := wantedOf(pod)
	w.Containers = append(w.Containers, add.ContainerID)
	if err := podns.Free(a.cfg.Proc, ns, w); err != nil {
		return nil, errors.Join(fmt.Errorf("network namespace %s is not that of pod %s/%s: %w", add.Netns, pod.Namespace, pod.Name, err), ns.Close())
	}
	return ns, nil
}

// serveDel forgets a sandbox that ends; the pod may get another.
func (a *Agent) serveDel(w http.ResponseWriter, r *http.Request) {
	var del event.Del
	if err := read(w, r, &del); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	uid, ok := a.cfg.Keeper.Sandbox(del.ContainerID)
	if !ok || a.locks.lock(r.Context(), uid) != nil {
		return
	}
	defer a.locks.release(uid)
	// Another sandbox may have taken its place while we waited.
	if now, ok := a.cfg.Keeper.Sandbox(del.ContainerID); !ok || now != uid {
		return
	}
	if err := a.cfg.Keeper.Forget(r.Context(), uid); err != nil {
		a.log.Warn("forgetting a sandbox", "pod", del.PodNamespace+"/"+del.PodName, "error", err)
	}
}

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// annotate says on the pod how it is captured; "" is not at all. It patches the
// status subresource, for the right to do so cannot change what a pod runs. A
// pod that is gone, or another of the same name, is no error.
func (a *Agent) annotate(ctx context.Context, pod *corev1.Pod, value string) error {
	if pod.Annotations[enrol.RedirectionAnnotation] == value && (value == enrol.Enabled || !a.said.has(string(pod.UID))) {
		return nil
	}
	annotations := map[string]any{enrol.RedirectionAnnotation: nullable(value)}
	if _, has := pod.Annotations[mesh.DatagramsAnnotation]; has && value != enrol.Enabled {
		annotations[mesh.DatagramsAnnotation] = nil
	}
	patched, err := a.patch(ctx, pod, annotations)
	if err != nil {
		return err
	}
	a.said.note(string(pod.UID), value)
	if patched != nil && value == "" {
		a.withdrawn.note(string(pod.UID), patched.ResourceVersion)
	}
	return nil
}

// annotateUDP says on the pod whether its UDP is captured.
func (a *Agent) annotateUDP(ctx context.Context, pod *corev1.Pod, captured bool) error {
	value := ""
	if captured {
		value = enrol.Enabled
	}
	if pod.Annotations[mesh.DatagramsAnnotation] == value {
		return nil
	}
	_, err := a.patch(ctx, pod, map[string]any{mesh.DatagramsAnnotation: nullable(value)})
	return err
}

// nullable is a value of a merge patch, in which null removes.
func nullable(value string) any {
	if value == "" {
		return nil
	}
	return value
}

// patch changes annotations; the pod is nil if it is gone.
func (a *Agent) patch(ctx context.Context, pod *corev1.Pod, annotations map[string]any) (*corev1.Pod, error) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":         pod.UID, // a conflict if it is another pod
		"annotations": annotations,
	}})
	if err != nil {
		return nil, fmt.Errorf("encoding a patch: %w", err)
	}
	patched, err := a.cfg.Kube.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case err == nil:
		return patched, nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil, nil
	}
	return nil, fmt.Errorf("annotating pod %s/%s: %w", pod.Namespace, pod.Name, err)
}

// said is which pods this agent has called enabled; what is watched may not
// show it yet. The zero value is ready.
type said struct {
	mu   sync.Mutex
	uids map[string]bool
}

func (s *said) note(uid, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if value != enrol.Enabled {
		delete(s.uids, uid)
		return
	}
	if s.uids == nil {
		s.uids = map[string]bool{}
	}
	s.uids[uid] = true
}

func (s *said) has(uid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uids[uid]
}

func (s *said) enabled(pod *corev1.Pod) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uids[string(pod.UID)] || pod.Annotations[enrol.RedirectionAnnotation] == enrol.Enabled
}

// keyed is a lock for each key. The zero value is ready.
type keyed struct {
	mu     sync.Mutex
	locked map[string]chan struct{} // closed at release
}

// try locks unless it is locked.
func (k *keyed) try(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.locked[key] != nil {
		return false
	}
	if k.locked == nil {
		k.locked = map[string]chan struct{}{}
	}
	k.locked[key] = make(chan struct{})
	return true
}

// lock waits for the lock or for ctx.
func (k *keyed) lock(ctx context.Context, key string) error {
	for !k.try(key) {
		k.mu.Lock()
		wait := k.locked[key]
		k.mu.Unlock()
		if wait == nil {
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (k *keyed) release(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.locked[key])
	delete(k.locked, key)
}

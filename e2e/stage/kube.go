package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/ambit-mesh/ambit/ambit/install"
	"github.com/ambit-mesh/ambit/manifests"
)

// pollEvery is how often a condition is looked at.
const pollEvery = 200 * time.Millisecond

// Until polls f until it returns nil or ctx ends; then it tells what f said last.
func Until(ctx context.Context, f func(context.Context) error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err // not the echo of the end of ctx
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// Within is Until with a limit of its own.
func Within(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not so within %s", limit))
	defer cancel()
	return Until(ctx, f)
}

// Apply applies YAML documents on the server's side.
func (s *Stage) Apply(ctx context.Context, docs string) error {
	objs, err := install.Objects([]manifests.File{{Name: "of the play", Body: []byte(docs)}})
	if err != nil {
		return err
	}
	return install.Apply(ctx, s.Reach, objs, io.Discard)
}

// Delete deletes the objects that YAML documents name.
func (s *Stage) Delete(ctx context.Context, docs string) error {
	objs, err := install.Objects([]manifests.File{{Name: "of the play", Body: []byte(docs)}})
	if err != nil {
		return err
	}
	return install.Delete(ctx, s.Reach, objs, io.Discard)
}

// DeleteNamespace deletes a namespace; it does not wait.
func (s *Stage) DeleteNamespace(ctx context.Context, name string) error {
	err := s.Reach.Client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// NamespaceGone waits until a namespace has gone.
func (s *Stage) NamespaceGone(ctx context.Context, name string) error {
	return Within(ctx, 2*time.Minute, func(ctx context.Context) error {
		_, err := s.Reach.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(fmt.Errorf("namespace %s is still there", name), err)
	})
}

// Label sets a label on a namespace; an empty value removes it.
func (s *Stage) Label(ctx context.Context, namespace, key, value string) error {
	_, err := s.Reach.Client.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType, labelPatch(key, value), metav1.PatchOptions{})
	return err
}

// LabelPod sets a label on a pod; an empty value removes it.
func (s *Stage) LabelPod(ctx context.Context, namespace, pod, key, value string) error {
	_, err := s.Reach.Client.CoreV1().Pods(namespace).Patch(ctx, pod, types.MergePatchType, labelPatch(key, value), metav1.PatchOptions{})
	return err
}

func labelPatch(key, value string) []byte {
	if value == "" {
		return fmt.Appendf(nil, `{"metadata":{"labels":{%q:null}}}`, key)
	}
	return fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, key, value)
}

// Pods are the pods of a namespace that are not being deleted, by label.
func (s *Stage) Pods(ctx context.Context, namespace, label string) ([]corev1.Pod, error) {
	list, err := s.Reach.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil }), nil
}

// Pod gets one pod.
func (s *Stage) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return s.Reach.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

// Ready reports whether a pod is ready.
func Ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// Enrolled reports whether a pod is captured and says so to the mesh.
func Enrolled(p *corev1.Pod) bool { return p.Annotations["ambient.istio.io/redirection"] == "enabled" }

// PodsBecome waits until the namespace has pods and each of them is so.
func (s *Stage) PodsBecome(ctx context.Context, namespace, what string, is func(*corev1.Pod) bool) error {
	return Within(ctx, 2*time.Minute, func(ctx context.Context) error {
		pods, err := s.Pods(ctx, namespace, "")
		if err != nil {
			return err
		}
		if len(pods) == 0 {
			return fmt.Errorf("namespace %s has no pods", namespace)
		}
		for _, p := range pods {
			if !is(&p) {
				return fmt.Errorf("pod %s/%s on %s is not %s (%s)%s", namespace, p.Name, p.Spec.NodeName, what, p.Status.Phase, s.lastEvent(ctx, &p))
			}
		}
		return nil
	})
}

func (s *Stage) lastEvent(ctx context.Context, p *corev1.Pod) string {
	list, err := s.Reach.Client.CoreV1().Events(p.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(p.UID)})
	if err != nil || len(list.Items) == 0 {
		return ""
	}
	last := list.Items[len(list.Items)-1]
	return ": " + last.Reason + ": " + last.Message
}

// Exec runs a program in a pod's first container and returns what it printed.
// A program that ends with another code than 0 is an error that holds what it
// complained of.
func (s *Stage) Exec(ctx context.Context, namespace, pod string, command ...string) (string, error) {
	req := s.Reach.Client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	exec, err := remotecommand.NewSPDYExecutor(s.Reach.Config, "POST", req.URL())
	if err != nil {
		return "", err
	}
	var out, complaint bytes.Buffer
	err = exec.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &complaint})
	if err != nil {
		return out.String(), fmt.Errorf("in pod %s: %s: %w: %s", pod, strings.Join(command, " "), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.String(), nil
}

// Logs are a pod's logs since a time.
func (s *Stage) Logs(ctx context.Context, namespace, pod, container string, since time.Time) (string, error) {
	t := metav1.NewTime(since)
	b, err := s.Reach.Client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container, SinceTime: &t}).DoRaw(ctx)
	return string(b), err
}

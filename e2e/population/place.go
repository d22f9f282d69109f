package population

import (
	"context"
	"fmt"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Place writes a pod of the mesh that does run somewhere: at this address, with
// an account of its name, on the node that Proxy is on.
func (p *Population) Place(ctx context.Context, ns, name, address string) error {
	if err := p.namespace(ctx, ns, map[string]string{"istio.io/dataplane-mode": "ambient"}); err != nil {
		return err
	}
	_, err := p.place(ctx, ns, name, name, address)
	return err
}

// Proxy writes the pod of a node proxy, on the first node, and gives a token
// that is bound to it.
func (p *Population) Proxy(ctx context.Context, name, address string) (token string, err error) {
	pod, err := p.place(ctx, "istio-system", name, nodeProxy, address)
	if err != nil {
		return "", err
	}
	hour := int64(3600)
	r, err := p.client.CoreV1().ServiceAccounts("istio-system").CreateToken(ctx, nodeProxy, &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		Audiences: []string{"istio-ca"}, ExpirationSeconds: &hour,
		BoundObjectRef: &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: name, UID: pod.UID},
	}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("a token for %s: %w", name, err)
	}
	return r.Status.Token, nil
}

func (p *Population) place(ctx context.Context, ns, name, account, address string) (*corev1.Pod, error) {
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}
	if _, err := p.client.CoreV1().ServiceAccounts(ns).Create(ctx, sa, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	pod := p.pod(0)
	pod.Name, pod.Namespace, pod.OwnerReferences = name, ns, nil
	pod.Labels = map[string]string{"app": name}
	pod.Spec.ServiceAccountName = account
	made, err := p.client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	made.Status = pod.Status
	made.Status.PodIP, made.Status.PodIPs = address, []corev1.PodIP{{IP: address}}
	return p.client.CoreV1().Pods(ns).UpdateStatus(ctx, made, metav1.UpdateOptions{})
}

var policies = schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"}

// Deny writes a policy that lets nobody reach a namespace's pods; Allow takes
// it away.
func (p *Population) Deny(ctx context.Context, ns string) error {
	_, err := p.dynamic.Resource(policies).Namespace(ns).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": map[string]any{"name": "nobody"},
		"spec": map[string]any{"action": "DENY", "rules": []any{map[string]any{}}},
	}}, metav1.CreateOptions{})
	return err
}

// Allow takes away what Deny wrote.
func (p *Population) Allow(ctx context.Context, ns string) error {
	return p.dynamic.Resource(policies).Namespace(ns).Delete(ctx, "nobody", metav1.DeleteOptions{})
}

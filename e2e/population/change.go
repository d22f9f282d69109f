package population

import (
	"bytes"
	"context"
	"fmt"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// UID is the name of pod i in the mesh.
func (p *Population) UID(i int) string {
	return "Kubernetes//Pod/" + p.namespaceOf(p.serviceOf(i)) + "/" + p.podName(i)
}

// SetReady writes whether pod i is ready.
func (p *Population) SetReady(ctx context.Context, i int, ready bool) error {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	patch := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":%q}]}}`, status)
	_, err := p.client.CoreV1().Pods(p.namespaceOf(p.serviceOf(i))).Patch(ctx, p.podName(i), types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// nodeProxy is the account of the node proxies.
const nodeProxy = "ztunnel"

func (p *Population) makeNodeProxyAccount(ctx context.Context, _ int) error {
	_, err := p.client.CoreV1().ServiceAccounts("istio-system").Create(ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: nodeProxy}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// Tokens are n tokens of node proxies, each of its own.
func (p *Population) Tokens(ctx context.Context, n int) ([]string, error) {
	tokens, hour := make([]string, n), int64(3600)
	err := each(ctx, n, func(ctx context.Context, i int) error {
		r, err := p.client.CoreV1().ServiceAccounts("istio-system").CreateToken(ctx, nodeProxy,
			&authv1.TokenRequest{Spec: authv1.TokenRequestSpec{Audiences: []string{"istio-ca"}, ExpirationSeconds: &hour}}, metav1.CreateOptions{})
		if err == nil {
			tokens[i] = r.Status.Token
		}
		return err
	})
	return tokens, err
}

// Root is the certificate of the control plane, as every namespace has it.
func (p *Population) Root(ctx context.Context) (string, error) {
	cm, err := p.client.CoreV1().ConfigMaps("istio-system").Get(ctx, "istio-ca-root-cert", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return cm.Data["root-cert.pem"], nil
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// Define makes the custom kinds whose definitions are in YAML documents.
func (p *Population) Define(ctx context.Context, text []byte) error {
	for d := range bytes.SplitSeq(text, []byte("\n---\n")) {
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(d, &crd.Object); err != nil {
			return fmt.Errorf("reading a definition: %w", err)
		}
		if crd.Object == nil {
			continue // nothing but comments
		}
		if _, err := p.dynamic.Resource(definitions).Create(ctx, crd, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("defining %s: %w", crd.GetName(), err)
		}
	}
	return nil
}

package kube

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ambit-mesh/ambit/istiod-lite/ca"
)

// The Secrets of signing keys: one that an administrator plugs in, and ours.
const (
	pluggedSecret = "cacerts"
	ownSecret     = "istio-ca-secret"
	ownSecretType = "istio.io/ca-root"
)

// Keys keeps the signing material in Secrets of one namespace.
type Keys struct {
	Client    kubernetes.Interface
	Namespace string
	// Organization is in the subject of a root that is made here.
	Organization string
	Logger       *slog.Logger
}

// load finds the signing material: the plugged-in one if there is any, else our
// own, which the first replica that gets there makes and the others take.
func (k *Keys) load(ctx context.Context) (*ca.Material, error) {
	secrets := k.Client.CoreV1().Secrets(k.Namespace)
	plugged, err := secrets.Get(ctx, pluggedSecret, metav1.GetOptions{})
	switch {
	case err == nil:
		// One that cannot be used is an error, never a reason to make another root.
		return parseSecret(plugged)
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("reading secret %s: %w", pluggedSecret, err)
	}
	own, err := secrets.Get(ctx, ownSecret, metav1.GetOptions{})
	switch {
	case err == nil && len(own.Data) > 0:
		return parseSecret(own)
	case err == nil || apierrors.IsNotFound(err):
		return k.make(ctx, own)
	}
	return nil, fmt.Errorf("reading secret %s: %w", ownSecret, err)
}

// make writes a new root. If another replica was first, the next try reads
// its root.
func (k *Keys) make(ctx context.Context, empty *corev1.Secret) (*ca.Material, error) {
	m, err := ca.NewRoot(k.Organization, time.Now())
	if err != nil {
		return nil, err
	}
	data, err := m.Data()
	if err != nil {
		return nil, err
	}
	secrets := k.Client.CoreV1().Secrets(k.Namespace)
	if empty != nil && empty.ResourceVersion != "" {
		empty = empty.DeepCopy()
		empty.Data = data
		_, err = secrets.Update(ctx, empty, metav1.UpdateOptions{}) // refused if it changed since
	} else {
		_, err = secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: ownSecret, Namespace: k.Namespace},
			Type:       ownSecretType, Data: data,
		}, metav1.CreateOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("writing secret %s: %w", ownSecret, err)
	}
	k.Logger.Info("made the mesh's root certificate", "secret", k.Namespace+"/"+ownSecret)
	return m, nil
}

func parseSecret(s *corev1.Secret) (*ca.Material, error) {
	m, err := ca.ParseMaterial(s.Data)
	if err == nil {
		err = m.Check(time.Now())
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	return m, nil
}

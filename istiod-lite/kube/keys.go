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
	"k8s.io/client-go/tools/cache"

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

// Load finds the signing material: the plugged-in one if there is any, else
// our own, which the first replica that gets there makes and the others take.
// It tries until it succeeds or ctx ends.
func (k *Keys) Load(ctx context.Context) (*ca.Material, error) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		m, err := k.load(ctx)
		if err == nil {
			return m, nil
		}
		k.Logger.Warn("signing key not loaded yet", "reason", err, "retry", pause.String())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("loading the signing key: %w", err)
		}
	}
}

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

// Follow gives changed plugged-in material to use until ctx ends; what use
// refuses stays unused.
func (k *Keys) Follow(ctx context.Context, use func(*ca.Material) error) error {
	i := named(k.Client, k.Namespace, pluggedSecret).Core().V1().Secrets().Informer()
	take := func(o any) {
		s, ok := o.(*corev1.Secret)
		if !ok || s.Name != pluggedSecret {
			return
		}
		m, err := parseSecret(s)
		if err == nil {
			err = use(m)
		}
		if err != nil {
			k.Logger.Error("signing key not taken, the last one stays", "reason", err)
		}
	}
	if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: take, UpdateFunc: func(_, o any) { take(o) }}); err != nil {
		return fmt.Errorf("following secret %s: %w", pluggedSecret, err)
	}
	i.RunWithContext(ctx)
	return nil
}

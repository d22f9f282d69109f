package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// Where the state of the certificate authority is, and what users write there.
const (
	stateSecret   = "ambit-ca-state"
	standingMap   = "ambit-ca-standing"
	revocationKey = "ca-crl.pem"

	// askedFor, on our own Secret, asks for another root by any new text; servedFor
	// is the text that was served last.
	askedFor  = "ambit.io/rotate"
	servedFor = "ambit.io/rotated"
	// insteadOf, on our own Secret, is the root that its own was made to replace:
	// without it a Secret that somebody put there is no reason to change roots.
	insteadOf = "ambit.io/instead-of"
	// forced, on the state, is the epoch that ends although somebody has not
	// confirmed it.
	forced = "ambit.io/force"
)

// Board keeps the state of the certificate authority in Secrets, and what the
// replicas say in a ConfigMap. Run keeps it up to date.
type Board struct {
	keys    *Keys
	log     *slog.Logger
	changed chan struct{}

	mu       sync.Mutex
	state    *corev1.Secret
	plugged  *corev1.Secret
	own      *corev1.Secret
	standing *corev1.ConfigMap
	synced   bool        // all four have been read
	reading  *ca.Reading // of the four above; nil: not yet
	last     [][]byte    // the revocations that could be read last
	said     map[string]string
}

var _ ca.Board = (*Board)(nil)

// NewBoard makes a board beside the Secrets of keys.
func NewBoard(keys *Keys) *Board {
	return &Board{keys: keys, log: keys.Logger, changed: make(chan struct{}, 1), said: map[string]string{}}
}

// Load finds the course, or begins one, trying until it succeeds or ctx ends.
func (b *Board) Load(ctx context.Context) (*ca.Course, error) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		c, err := b.load(ctx)
		if err == nil {
			return c, nil
		}
		b.log.Warn("signing key not loaded yet", "reason", err, "retry", pause.String())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("loading the signing key: %w", err)
		}
	}
}

func (b *Board) load(ctx context.Context) (*ca.Course, error) {
	api := b.keys.Client.CoreV1().Secrets(b.keys.Namespace)
	s, err := api.Get(ctx, stateSecret, metav1.GetOptions{})
	switch {
	case err == nil && len(s.Data) > 0:
		c, err := ca.ParseCourse(s.Data)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", stateSecret, err)
		}
		if c.Material.Check(time.Now()) == nil {
			b.put(func() { b.state = s })
			return c, nil
		}
		return b.begin(ctx, s, c) // it has ended
	case err == nil || apierrors.IsNotFound(err):
		return b.begin(ctx, nil, nil)
	}
	return nil, fmt.Errorf("reading secret %s: %w", stateSecret, err)
}

// begin writes a course that is at its target. If another replica was first,
// the next try reads its.
func (b *Board) begin(ctx context.Context, old *corev1.Secret, before *ca.Course) (*ca.Course, error) {
	m, err := b.keys.load(ctx)
	if err != nil {
		return nil, err
	}
	c, err := ca.NewCourse(m, before, time.Now())
	if err != nil {
		return nil, err
	}
	s, err := b.write(ctx, old, c)
	if err != nil {
		return nil, err
	}
	b.put(func() { b.state = s })
	return c, nil
}

// write replaces a Secret by a course, or creates it if old is nil.
func (b *Board) write(ctx context.Context, old *corev1.Secret, c *ca.Course) (*corev1.Secret, error) {
	data, err := c.Data()
	if err != nil {
		return nil, err
	}
	api := b.keys.Client.CoreV1().Secrets(b.keys.Namespace)
	if old == nil {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: stateSecret, Namespace: b.keys.Namespace}, Type: ownSecretType, Data: data}
		s, err = api.Create(ctx, s, metav1.CreateOptions{})
		return s, overtaken(err)
	}
	s := old.DeepCopy()
	s.Data = data
	s, err = api.Update(ctx, s, metav1.UpdateOptions{}) // refused if it changed since
	return s, overtaken(err)
}

func overtaken(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("%w: %w", ca.ErrOvertaken, err)
	}
	return err
}

// put changes what was read, and says so.
func (b *Board) put(f func()) {
	b.mu.Lock()
	f()
	b.reading = nil
	b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// Changed implements ca.Board.
func (b *Board) Changed() <-chan struct{} { return b.changed }

// Write implements ca.Board.
func (b *Board) Write(ctx context.Context, last ca.Reading, next *ca.Course) error {
	b.mu.Lock()
	old := b.state
	b.mu.Unlock()
	if old == nil || old.ResourceVersion != last.Version {
		return ca.ErrOvertaken
	}
	if last.Course.State.Phase == rotation.Steady && next.State.Phase != rotation.Steady {
		// What replicas said in an earlier rotation is of no use.
		err := b.keys.Client.CoreV1().ConfigMaps(b.keys.Namespace).Delete(ctx, standingMap, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("clearing configmap %s: %w", standingMap, err)
		}
	}
	s, err := b.write(ctx, old, next)
	if err != nil {
		return err
	}
	b.put(func() {
		if b.state == old {
			b.state = s
		}
	})
	return nil
}

// Note implements ca.Board.
func (b *Board) Note(ctx context.Context, r rotation.Record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"data": map[string]string{r.Replica: string(text)}})
	if err != nil {
		return err
	}
	api := b.keys.Client.CoreV1().ConfigMaps(b.keys.Namespace)
	_, err = api.Patch(ctx, standingMap, types.MergePatchType, patch, metav1.PatchOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	_, err = api.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: standingMap, Namespace: b.keys.Namespace}, Data: map[string]string{r.Replica: string(text)},
	}, metav1.CreateOptions{})
	return overtaken(err)
}

// Renew implements ca.Board.
func (b *Board) Renew(ctx context.Context, last ca.Reading) error {
	m, err := ca.NewRoot(b.keys.Organization, time.Now())
	if err != nil {
		return err
	}
	data, err := m.Data()
	if err != nil {
		return err
	}
	b.mu.Lock()
	old := b.own
	b.mu.Unlock()
	api := b.keys.Client.CoreV1().Secrets(b.keys.Namespace)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: ownSecret, Namespace: b.keys.Namespace}, Type: ownSecretType}
	if old != nil {
		s = old.DeepCopy()
		if list, ok := s.Data[revocationKey]; ok {
			data[revocationKey] = list // of certificates of the old root, while there are any
		}
	}
	s.Data = data
	metav1.SetMetaDataAnnotation(&s.ObjectMeta, servedFor, s.Annotations[askedFor])
	metav1.SetMetaDataAnnotation(&s.ObjectMeta, insteadOf, string(last.Course.State.Target.Root))
	if old == nil {
		s, err = api.Create(ctx, s, metav1.CreateOptions{})
	} else {
		s, err = api.Update(ctx, s, metav1.UpdateOptions{})
	}
	if err != nil {
		return overtaken(err)
	}
	b.put(func() { b.own = s })
	return nil
}

// Run keeps what is read up to date until ctx ends.
func (b *Board) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	var read []cache.InformerSynced
	for name, place := range map[string]**corev1.Secret{stateSecret: &b.state, pluggedSecret: &b.plugged, ownSecret: &b.own} {
		i := named(b.keys.Client, b.keys.Namespace, name).Core().V1().Secrets().Informer()
		if err := follow(i, name, func(s *corev1.Secret) { b.put(func() { newer(place, s) }) }, func() { b.gone(ctx, name, place) }); err != nil {
			return err
		}
		all.Go(func() { i.RunWithContext(ctx) })
		read = append(read, i.HasSynced)
	}
	i := named(b.keys.Client, b.keys.Namespace, standingMap).Core().V1().ConfigMaps().Informer()
	if err := follow(i, standingMap, func(m *corev1.ConfigMap) { b.put(func() { b.standing = m }) }, func() { b.put(func() { b.standing = nil }) }); err != nil {
		return err
	}
	all.Go(func() { i.RunWithContext(ctx) })
	if cache.WaitForCacheSync(ctx.Done(), append(read, i.HasSynced)...) {
		b.put(func() { b.synced = true })
	}
	<-ctx.Done()
	return nil
}

// newer puts s into a place unless what is there has been written after it: what
// we wrote ourselves is there before it is heard of.
func newer(place **corev1.Secret, s *corev1.Secret) {
	if old := *place; old != nil && old.UID == s.UID {
		was, _ := strconv.ParseUint(old.ResourceVersion, 10, 64)
		is, _ := strconv.ParseUint(s.ResourceVersion, 10, 64)
		if is < was && is > 0 {
			return
		}
	}
	*place = s
}

// gone forgets a Secret. The state is written again: what it holds may be
// nowhere else.
func (b *Board) gone(ctx context.Context, name string, place **corev1.Secret) {
	if name != stateSecret {
		b.put(func() { *place = nil })
		return
	}
	b.mu.Lock()
	s := b.state.DeepCopy()
	b.mu.Unlock()
	s.ObjectMeta = metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace, Annotations: s.Annotations}
	if _, err := b.keys.Client.CoreV1().Secrets(b.keys.Namespace).Create(ctx, s, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		b.log.Error("the state of the certificate authority was deleted and could not be written again", "secret", name, "reason", err)
		return
	}
	b.log.Warn("the state of the certificate authority was deleted and is written again", "secret", name)
}

// follow tells of one object of a name.
func follow[T metav1.Object](i cache.SharedIndexInformer, name string, is func(T), gone func()) error {
	take := func(o any) {
		if t, ok := o.(T); ok && t.GetName() == name {
			is(t)
		}
	}
	_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: take, UpdateFunc: func(_, o any) { take(o) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			if t, ok := o.(T); ok && t.GetName() == name {
				gone()
			}
		},
	})
	if err != nil {
		return fmt.Errorf("following %s: %w", name, err)
	}
	return nil
}

// forcedEpoch is the epoch that a user ends.
func forcedEpoch(s *corev1.Secret) uint64 {
	n, _ := strconv.ParseUint(s.Annotations[forced], 10, 64)
	return n
}

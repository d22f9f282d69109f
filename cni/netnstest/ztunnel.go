package netnstest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// Ztunnel is a client of the agent that plays a Proxy in each pod that it is
// told of.
type Ztunnel struct {
	ctx    context.Context
	client *zds.Client
	cancel func()
	done   chan struct{}

	mu      sync.Mutex
	pods    map[string]*served
	kept    []string
	refusal error
}

type served struct {
	pod   zds.Pod
	ns    *linux.NetNS
	proxy proxy
}

// NewZtunnel connects to the agent at path and, unless refusal is nil, refuses
// every pod; it leaves with the test.
func NewZtunnel(t testing.TB, path string, refusal error) *Ztunnel {
	t.Helper()
	client, err := zds.Dial(t.Context(), path)
	// As the real one it tries again: of an agent that ended the socket is left,
	// and nobody listens until the next one does.
	for end := time.Now().Add(Patience); errors.Is(err, unix.ECONNREFUSED) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		client, err = zds.Dial(t.Context(), path)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	z := &Ztunnel{ctx: ctx, cancel: cancel, client: client, done: make(chan struct{}), pods: map[string]*served{}, refusal: refusal}
	go z.run()
	t.Cleanup(z.Leave)
	return z
}

// Leave ends the connection and all proxies. It may be called twice.
func (z *Ztunnel) Leave() {
	z.client.Close()
	<-z.done
	z.cancel()
	z.mu.Lock()
	defer z.mu.Unlock()
	for uid, s := range z.pods {
		s.end()
		delete(z.pods, uid)
	}
}

func (s *served) end() {
	s.proxy.stop()
	s.ns.Close()
}

// Refuse answers further pods with err; nil accepts again.
func (z *Ztunnel) Refuse(err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.refusal = err
}

// Pods are the UIDs that it serves, sorted.
func (z *Ztunnel) Pods() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	var all []string
	for uid := range z.pods {
		all = append(all, uid)
	}
	slices.Sort(all)
	return all
}

// Pod is what it was told of a pod.
func (z *Ztunnel) Pod(uid string) (zds.Pod, linux.NetNSID) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if s := z.pods[uid]; s != nil {
		return s.pod, s.ns.ID()
	}
	return zds.Pod{}, linux.NetNSID{}
}

// Kept are the UIDs that it was told to keep.
func (z *Ztunnel) Kept() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.kept)
}

func (z *Ztunnel) run() {
	defer close(z.done)
	for {
		r, err := z.client.Receive(z.ctx)
		if err != nil || z.client.Ack(z.take(r)) != nil {
			return
		}
	}
}

func (z *Ztunnel) take(r zds.Request) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	switch r.Kind {
	case zds.Add:
		ns, err := linux.NetNSFromFile(r.NetNS)
		if err != nil {
			return err
		}
		return z.addLocked(r.Pod, ns)
	case zds.Keep:
		z.kept = append(z.kept, r.Pod.UID)
	case zds.Del:
		if s := z.pods[r.Pod.UID]; s != nil {
			delete(z.pods, r.Pod.UID)
			s.end()
		}
	}
	return nil
}

func (z *Ztunnel) addLocked(pod zds.Pod, ns *linux.NetNS) error {
	old := z.pods[pod.UID]
	switch {
	case z.refusal != nil:
		ns.Close()
		return z.refusal
	case old != nil && old.ns.ID() == ns.ID():
		return ns.Close()
	case old != nil:
		old.end()
		delete(z.pods, pod.UID)
	}
	p, err := newProxy(z.ctx, ns)
	if err != nil {
		ns.Close()
		return err
	}
	z.pods[pod.UID] = &served{pod, ns, p}
	return nil
}

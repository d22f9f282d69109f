package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/cni/handoff"
	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
)

const patience = 10 * time.Second

// ztunnel is a client that notes what it is told and refuses some pods.
type ztunnel struct {
	mu     sync.Mutex
	heard  []string
	refuse map[string]bool
	hang   chan struct{} // if set, acks wait for it
	client *zds.Client
	done   chan struct{}
}

func connect(t *testing.T, path string, z *ztunnel) *ztunnel {
	t.Helper()
	client, err := zds.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	z.client, z.done = client, make(chan struct{})
	go z.run()
	t.Cleanup(z.leave)
	return z
}

func (z *ztunnel) leave() {
	z.client.Close()
	<-z.done
}

func (z *ztunnel) run() {
	defer close(z.done)
	for {
		r, err := z.client.Receive(context.Background())
		if err != nil {
			return
		}
		what := fmt.Sprintf("%s %s", r.Kind, r.Pod.UID)
		if r.NetNS != nil {
			ns, err := linux.NetNSFromFile(r.NetNS)
			if err != nil {
				what += " without a network namespace"
			} else {
				what += fmt.Sprintf(" %s/%s ns %d", r.Pod, r.Pod.ServiceAccount, ns.ID().Ino)
				ns.Close()
			}
		}
		z.mu.Lock()
		z.heard = append(z.heard, what)
		refuse := z.refuse[r.Pod.UID]
		z.mu.Unlock()
		if z.hang != nil {
			<-z.hang
		}
		var answer error
		if refuse {
			answer = errors.New("address in use")
		}
		if z.client.Ack(answer) != nil {
			return
		}
	}
}

// hears waits until the ztunnel has heard exactly want; the order of a
// snapshot's pods is open, so all is compared sorted, and the end as it is.
func (z *ztunnel) hears(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		z.mu.Lock()
		got = slices.Clone(z.heard)
		z.mu.Unlock()
		if len(got) >= len(want) {
			break
		}
	}
	last := len(want) - 1
	if len(got) == len(want) && got[last] != want[last] {
		t.Errorf("last heard %q, want %q", got[last], want[last])
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
}

func start(t *testing.T) (*handoff.Pods, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "z")
	l, err := zds.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	p := handoff.New(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		p.Close()
	})
	return p, path
}

func pod(uid string) zds.Pod {
	return zds.Pod{UID: uid, Name: "n-" + uid, Namespace: "shop", ServiceAccount: "sa"}
}

func added(uid string, ns *linux.NetNS) string {
	return fmt.Sprintf("add %s shop/n-%s/sa ns %d", uid, uid, ns.ID().Ino)
}

func put(t *testing.T, p *handoff.Pods, uid string, ns *linux.NetNS) {
	t.Helper()
	if err := p.Put(pod(uid), ns); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, p *handoff.Pods, uid string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return p.Wait(ctx, uid)
}

func del(t *testing.T, p *handoff.Pods, uid string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Del(ctx, uid); err != nil {
		t.Fatal(err)
	}
}

func TestASnapshotComesFirstAndChangesFollow(t *testing.T) {
	p, path := start(t)
	a, b := netnstest.New(t), netnstest.New(t)
	put(t, p, "a", a)
	p.Keep("k")
	z := connect(t, path, &ztunnel{})
	z.hears(t, added("a", a), "keep k", "snapshot-sent ")
	put(t, p, "b", b)
	if err := wait(t, p, "b"); err != nil {
		t.Fatal(err)
	}
	if !p.Served("b") {
		t.Error("b was acknowledged but is not said to be served")
	}
	del(t, p, "a")
	z.hears(t, added("a", a), "keep k", "snapshot-sent ", added("b", b), "del a")
	put(t, p, "b", a) // a new sandbox of the same pod
	if err := wait(t, p, "b"); err != nil {
		t.Fatal(err)
	}
	z.hears(t, added("a", a), "keep k", "snapshot-sent ", added("b", b), "del a", added("b", a))
	if p.Connected() != 1 {
		t.Errorf("%d ztunnels connected, want 1", p.Connected())
	}
}

func TestNewPodsGoToTheNewestAndRemovalsToAll(t *testing.T) {
	p, path := start(t)
	ns := netnstest.New(t)
	put(t, p, "a", ns)
	old := connect(t, path, &ztunnel{})
	old.hears(t, added("a", ns), "snapshot-sent ")
	newer := connect(t, path, &ztunnel{})
	newer.hears(t, added("a", ns), "snapshot-sent ")
	put(t, p, "b", ns)
	if err := wait(t, p, "b"); err != nil {
		t.Fatal(err)
	}
	del(t, p, "a")
	newer.hears(t, added("a", ns), "snapshot-sent ", added("b", ns), "del a")
	old.hears(t, added("a", ns), "snapshot-sent ", "del a")

	// The newest ends: the one before takes its place and what it missed.
	newer.leave()
	old.hears(t, added("a", ns), "snapshot-sent ", "del a", added("b", ns))
}

func TestWithoutZtunnel(t *testing.T) {
	p, path := start(t)
	ns := netnstest.New(t)
	put(t, p, "a", ns)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx, "a"); !errors.Is(err, handoff.ErrNoZtunnel) {
		t.Errorf("error %v, want %v", err, handoff.ErrNoZtunnel)
	}
	if p.Served("a") {
		t.Error("a pod is served by nobody")
	}
	connect(t, path, &ztunnel{})
	if err := wait(t, p, "a"); err != nil {
		t.Errorf("ztunnel came: %v", err)
	}
}

func TestARefusalHarmsOnlyItsPod(t *testing.T) {
	p, path := start(t)
	ns := netnstest.New(t)
	put(t, p, "bad", ns)
	z := connect(t, path, &ztunnel{refuse: map[string]bool{"bad": true}})
	z.hears(t, added("bad", ns), "snapshot-sent ")
	var nack *zds.NackError
	if err := wait(t, p, "bad"); !errors.As(err, &nack) {
		t.Errorf("error %v, want ztunnel's refusal", err)
	}
	put(t, p, "good", ns)
	if err := wait(t, p, "good"); err != nil {
		t.Error(err)
	}
	z.mu.Lock()
	z.refuse = nil
	z.mu.Unlock()
	put(t, p, "bad", ns) // again
	if err := wait(t, p, "bad"); err != nil {
		t.Errorf("tried again: %v", err)
	}
}

func TestChangesDuringTheSnapshot(t *testing.T) {
	p, path := start(t)
	ns := netnstest.New(t)
	put(t, p, "a", ns)
	z := connect(t, path, &ztunnel{hang: make(chan struct{})})
	z.hears(t, added("a", ns)) // and does not answer
	gone := make(chan error)
	go func() { gone <- p.Del(t.Context(), "a") }()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		err := p.Wait(ctx, "a")
		cancel()
		if strings.Contains(err.Error(), "withdrawn") {
			break
		}
	}
	put(t, p, "b", ns)
	close(z.hang)
	if err := <-gone; err != nil {
		t.Fatal(err)
	}
	if err := wait(t, p, "b"); err != nil {
		t.Fatal(err)
	}
	z.hears(t, added("a", ns), "del a", added("b", ns), "snapshot-sent ")
}

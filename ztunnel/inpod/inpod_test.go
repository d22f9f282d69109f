package inpod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// proxy is a fake that drains when told, or cut.
type proxy struct {
	name     string
	node     *node
	drained  chan struct{}
	wasCut   bool
	released sync.Once
}

func (p *proxy) StopAccepting() { p.node.say("stop " + p.name) }

func (p *proxy) Drain(ctx context.Context) error {
	p.StopAccepting()
	select {
	case <-p.drained:
		p.node.say("drained " + p.name)
	case <-ctx.Done():
		p.node.say("cut " + p.name)
	}
	return nil
}

func (p *proxy) release() { p.released.Do(func() { close(p.drained) }) }

// node is a manager with a fake agent and fake proxies.
type node struct {
	t       *testing.T
	manager *Manager
	agent   *zds.Listener
	ready   chan bool

	mu      sync.Mutex
	story   []string
	proxies map[string]*proxy
	refuse  map[string]error // by pod name
	spaces  map[string]*os.File
}

func (n *node) say(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.story = append(n.story, s)
}

func (n *node) start(p zds.Pod, _ *linux.NetNS) (Proxy, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.refuse[p.Name]; err != nil {
		return nil, err
	}
	n.story = append(n.story, "start "+p.Name)
	n.proxies[p.Name] = &proxy{name: p.Name, node: n, drained: make(chan struct{})}
	return n.proxies[p.Name], nil
}

func (n *node) proxy(name string) *proxy {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proxies[name]
}

// said waits until the story is what it should be.
func (n *node) said(want ...string) {
	n.t.Helper()
	n.eventually(func() string {
		n.mu.Lock()
		defer n.mu.Unlock()
		return cmp.Diff(want, n.story)
	})
}

func (n *node) eventually(wrong func() string) {
	n.t.Helper()
	var last string
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if last = wrong(); last == "" {
			return
		}
	}
	n.t.Fatalf("still wrong: %s", last)
}

func newNode(t *testing.T) *node {
	t.Helper()
	path := filepath.Join(t.TempDir(), "z.sock")
	agent, err := zds.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, agent: agent, ready: make(chan bool, 100), proxies: map[string]*proxy{}, refuse: map[string]error{}, spaces: map[string]*os.File{}}
	n.manager = New(Config{Path: path, Start: n.start, Ready: func(b bool) { n.ready <- b }, Retry: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.manager.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		agent.Close()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		over, cancel := context.WithCancel(context.Background())
		cancel()
		n.manager.Drain(over)
	})
	return n
}

func (n *node) connect() *zds.Conn {
	n.t.Helper()
	c, err := n.agent.Accept()
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := c.Hello(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

func (n *node) nextReady(want bool) {
	n.t.Helper()
	select {
	case got := <-n.ready:
		if got != want {
			n.t.Errorf("ready %v, want %v", got, want)
		}
	case <-time.After(15 * time.Second):
		n.t.Fatalf("nobody said ready=%v", want)
	}
}

func podOf(name string) zds.Pod {
	return zds.Pod{UID: "uid-" + name, Name: name, Namespace: "shop", ServiceAccount: "sa"}
}

// in is the namespace of a pod of that name.
func (n *node) in(name string) *os.File {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.spaces[name] == nil {
		n.spaces[name] = linuxtest.NewNetNS(n.t).File()
	}
	return n.spaces[name]
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (n *node) states() string {
	var b strings.Builder
	for _, s := range n.manager.Pods() {
		fmt.Fprintf(&b, "%s=%s ", s.Name, s.State)
	}
	return strings.TrimSpace(b.String())
}

func TestASnapshotIsServedAndMakesReady(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	must(t, c.Add(t.Context(), podOf("a"), n.in("a")), c.Add(t.Context(), podOf("b"), n.in("b")), c.SnapshotSent(t.Context()))
	n.nextReady(true)
	n.said("start a", "start b")
	must(t, c.Add(t.Context(), podOf("a"), n.in("a"))) // again: nothing happens
	must(t, c.Del(t.Context(), "uid-a"))
	n.proxy("a").release()
	n.said("start a", "start b", "stop a", "stop a", "drained a")
	must(t, c.Del(t.Context(), "uid-nobody"))
	n.eventually(func() string { return cmp.Diff("b=Up", n.states()) })
}

func TestAPodThatCannotBeServedHarmsOnlyItselfAndIsTriedAgain(t *testing.T) {
	n := newNode(t)
	n.mu.Lock()
	n.refuse["bad"] = errors.New("port 15001 is in use")
	n.mu.Unlock()
	c := n.connect()
	err := c.Add(t.Context(), podOf("bad"), n.in("bad"))
	var nack *zds.NackError
	if !errors.As(err, &nack) || !strings.Contains(nack.Reason, "15001 is in use") {
		t.Errorf("the agent was told %v", err)
	}
	must(t, c.Add(t.Context(), podOf("good"), n.in("good")), c.SnapshotSent(t.Context()))
	n.nextReady(true) // in spite of the bad one
	if got := n.states(); got != "bad=Pending good=Up" {
		t.Errorf("states %q", got)
	}
	n.mu.Lock()
	delete(n.refuse, "bad")
	n.mu.Unlock()
	n.said("start good", "start bad")
}

func TestServingGoesOnWhileTheAgentIsAwayAndIsReconciledAfterwards(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	must(t, c.Add(t.Context(), podOf("stays"), n.in("stays")), c.Add(t.Context(), podOf("kept"), n.in("kept")), c.Add(t.Context(), podOf("gone"), n.in("gone")), c.SnapshotSent(t.Context()))
	n.nextReady(true)
	c.Close()
	n.nextReady(false)
	c = n.connect()
	if got := n.states(); got != "gone=Up kept=Up stays=Up" {
		t.Errorf("with the agent away: %q", got)
	}
	must(t, c.Add(t.Context(), podOf("stays"), n.in("stays")), c.Keep(t.Context(), "uid-kept"), c.SnapshotSent(t.Context()))
	n.nextReady(true)
	n.proxy("gone").release()
	n.eventually(func() string { return cmp.Diff("kept=Up stays=Up", n.states()) })
}

func TestAProtocolViolationReconnects(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	must(t, c.Add(t.Context(), podOf("a"), n.in("a")), c.SnapshotSent(t.Context()))
	n.nextReady(true)
	if err := c.SnapshotSent(t.Context()); err == nil {
		t.Error("a second snapshot was accepted")
	}
	n.nextReady(false)
	n.connect()
	if got := n.states(); got != "a=Up" {
		t.Errorf("states %q", got)
	}
}

func TestAPodInANewNamespaceIsServedAnewWhileTheOldOneDrains(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	must(t, c.Add(t.Context(), podOf("a"), linuxtest.NewNetNS(t).File()), c.SnapshotSent(t.Context()))
	must(t, c.Add(t.Context(), podOf("a"), linuxtest.NewNetNS(t).File()))
	n.eventually(func() string { return cmp.Diff("a=Draining a=Up", n.states()) })
	// The old namespace has no interface: it is torn down, so it is cut.
	n.eventually(func() string { return cmp.Diff("a=Up", n.states()) })
	n.mu.Lock()
	story := slices.Sorted(slices.Values(n.story)) // the old one stops while the new one starts
	n.mu.Unlock()
	if diff := cmp.Diff([]string{"cut a", "start a", "start a", "stop a", "stop a"}, story); diff != "" {
		t.Error(diff)
	}
}

func TestADrainEndsEveryPodByItsDeadline(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	must(t, c.Add(t.Context(), podOf("quick"), n.in("quick")), c.SnapshotSent(t.Context()))
	must(t, c.Add(t.Context(), podOf("slow"), n.in("slow")))
	n.proxy("quick").release()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	must(t, n.manager.Drain(ctx))
	if got := n.states(); got != "" {
		t.Errorf("left after the drain: %q", got)
	}
	n.mu.Lock()
	story := strings.Join(n.story, ", ")
	n.mu.Unlock()
	if !strings.Contains(story, "drained quick") || !strings.Contains(story, "cut slow") {
		t.Errorf("story: %s", story)
	}
	if err := c.Add(t.Context(), podOf("late"), n.in("late")); err == nil {
		t.Error("a pod was taken while shutting down")
	}
}

// TestWhoIsWhoDoesNotChange: in one namespace there is one pod, and a pod stays
// who it is.
func TestWhoIsWhoDoesNotChange(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	must(t, c.Add(t.Context(), podOf("a"), n.in("a")), c.SnapshotSent(t.Context()))
	refused := func(what string, p zds.Pod, reason string) {
		t.Helper()
		if err := c.Add(t.Context(), p, n.in("a")); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: answer %v, want %q", what, err, reason)
		}
	}
	refused("another pod in its namespace", podOf("b"), "its network namespace is served as that of pod shop/a (uid uid-a)")
	other := podOf("a")
	other.ServiceAccount = "admin"
	refused("the same pod with another account", other, "a pod does not change who it is")
	other = podOf("a")
	other.Name = "c"
	refused("the same pod with another name", other, "a pod does not change who it is")
	if got := n.states(); got != "a=Up b=Pending" {
		t.Errorf("states %q", got)
	}
	n.said("start a")
	// The first has left: the namespace is free for whom the agent says.
	must(t, c.Del(t.Context(), "uid-a"))
	n.proxy("a").release()
	n.eventually(func() string { return cmp.Diff("b=Up", n.states()) })
}

// Package suite is the end-to-end tests: what must hold on a real cluster, each
// promise a named test. It owns the harness (a namespace of its own per test,
// one retry that is printed as FLAKY, what to show when a promise breaks); it
// refuses to know how a cluster is made (e2e/stage). The tests carry the build
// tag e2e; `make test` runs them.
package suite

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// modeLabel lets a namespace or a pod join the mesh.
const modeLabel = "istio.io/dataplane-mode"

const trustDomain = "cluster.local"

// Scene is one attempt at one test: a stage and a namespace of its own.
type Scene struct {
	*stage.Stage
	// NS is the test's namespace.
	NS    string
	Began time.Time
	t     *testing.T

	mu    sync.Mutex
	extra []string // further namespaces
	undo  []func(context.Context) error

	play         *play
	lastFindings string // what `ambit check` found last
}

// promiseLimit is how long one attempt may take: generous, a bound is for bench.
const promiseLimit = 5 * time.Minute

// Hold checks that a promise holds. If it does not, it is given one more
// chance in a fresh namespace: if it holds then, that is printed as FLAKY, and
// is a bug to be written up.
func Hold(t *testing.T, s *stage.Stage, promise func(context.Context, *Scene) error) {
	t.Helper()
	hold(t, s, promiseLimit, promise)
}

func hold(t *testing.T, s *stage.Stage, limit time.Duration, promise func(context.Context, *Scene) error) {
	t.Helper()
	err := attempt(t, s, 1, limit, promise)
	if err == nil {
		return
	}
	t.Logf("first attempt: %v", err)
	if again := attempt(t, s, 2, limit, promise); again != nil {
		t.Fatal(again)
	}
	flaky(t.Name(), err)
	t.Logf("FLAKY: it held at the second attempt")
}

var (
	flakyMu sync.Mutex
	flakes  []string
)

func flaky(name string, err error) {
	flakyMu.Lock()
	defer flakyMu.Unlock()
	flakes = append(flakes, fmt.Sprintf("FLAKY %s: %v", name, err))
}

// PrintFlakes tells at the end of a run what held only at the second attempt.
func PrintFlakes() {
	flakyMu.Lock()
	defer flakyMu.Unlock()
	for _, f := range flakes {
		fmt.Fprintln(os.Stderr, f)
	}
}

func attempt(t *testing.T, s *stage.Stage, n int, limit time.Duration, promise func(context.Context, *Scene) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("not decided within %s", limit))
	defer cancel()
	sc := &Scene{Stage: s, NS: namespaceFor(t.Name(), n), Began: time.Now(), t: t}
	sc.play = plays.begin(t.Name(), sc.Began)
	defer func() { plays.end(sc.play, time.Now()) }()
	// Leftovers of an earlier run must not decide this one.
	if err := s.DeleteNamespace(ctx, sc.NS); err != nil {
		return err
	}
	if err := s.NamespaceGone(ctx, sc.NS); err != nil {
		return err
	}
	err := promise(ctx, sc)
	if err != nil {
		sc.explain()
	}
	return joinUndo(err, sc.close())
}

func joinUndo(err, undo error) error {
	if undo != nil && err == nil {
		return fmt.Errorf("the promise held, cleaning up after it did not: %w", undo)
	}
	return err
}

// namespaceFor makes a namespace's name out of a test's.
func namespaceFor(test string, attempt int) string {
	var b strings.Builder
	for _, r := range strings.TrimPrefix(test, "Test") {
		switch {
		case r >= 'A' && r <= 'Z':
			if b.Len() > 0 {
				b.WriteByte('-')
			}
			b.WriteRune(r - 'A' + 'a')
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		}
	}
	name := b.String()
	if len(name) > 40 {
		name = strings.Trim(name[:40], "-")
	}
	return fmt.Sprintf("t-%s-%d", name, attempt)
}

// close undoes what the scene changed outside of its namespaces, last first,
// and deletes these.
func (sc *Scene) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	sc.mu.Lock()
	defer sc.mu.Unlock()
	var first error
	for i := len(sc.undo) - 1; i >= 0; i-- {
		if err := sc.undo[i](ctx); err != nil && first == nil {
			first = err
		}
	}
	for _, ns := range append(sc.extra, sc.NS) {
		if err := sc.DeleteNamespace(ctx, ns); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Undo registers what puts back a change outside of the scene's namespaces.
func (sc *Scene) Undo(f func(context.Context) error) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.undo = append(sc.undo, f)
}

// Cuts announces that what the scene does from now on may cut connections of
// others: those of the vigil that fail until its end are counted apart.
func (sc *Scene) Cuts() { plays.cuts(sc.play, time.Now()) }

// Namespace creates the scene's namespace, in the mesh or not.
func (sc *Scene) Namespace(ctx context.Context, inMesh bool) error {
	return sc.createNamespace(ctx, sc.NS, inMesh)
}

// Another creates a further namespace and returns its name.
func (sc *Scene) Another(ctx context.Context, suffix string, inMesh bool) (string, error) {
	name := sc.NS + "-" + suffix
	if err := sc.DeleteNamespace(ctx, name); err != nil {
		return "", err
	}
	if err := sc.NamespaceGone(ctx, name); err != nil {
		return "", err
	}
	sc.mu.Lock()
	sc.extra = append(sc.extra, name)
	sc.mu.Unlock()
	return name, sc.createNamespace(ctx, name, inMesh)
}

func (sc *Scene) createNamespace(ctx context.Context, name string, inMesh bool) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	if inMesh {
		ns.Labels[modeLabel] = "ambient"
	}
	_, err := sc.Reach.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	return err
}

// Node is the name of the first, second, … node that takes pods.
func (sc *Scene) Node(ctx context.Context, n int) (string, error) {
	nodes, err := sc.Reach.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	var names []string
	for _, node := range nodes.Items {
		if !node.Spec.Unschedulable && len(node.Spec.Taints) == 0 {
			names = append(names, node.Name)
		}
	}
	if len(names) == 0 {
		return "", fmt.Errorf("no node takes pods")
	}
	return names[min(n, len(names))-1], nil
}

// Identity is the SPIFFE identity of an account of a namespace.
func Identity(namespace, account string) string {
	return "spiffe://" + Principal(namespace, account)
}

// Principal is how a policy names the same.
func Principal(namespace, account string) string {
	return trustDomain + "/ns/" + namespace + "/sa/" + account
}

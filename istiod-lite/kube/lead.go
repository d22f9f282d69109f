package kube

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// leaseName is the lease of the replica that writes.
const leaseName = "istiod-leader"

// Lead runs work whenever this replica holds the lease, until ctx ends. The
// context of work ends when the lease is lost; Lead waits for work to return.
// Proxies are served by every replica: only writes to the API server need one.
func Lead(ctx context.Context, c kubernetes.Interface, namespace, identity string, log *slog.Logger, work func(context.Context) error) error {
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Name: leaseName, Namespace: namespace},
		Client:     c.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}
	for ctx.Err() == nil {
		t := &term{done: make(chan struct{})}
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, ReleaseOnCancel: true, Name: leaseName,
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					t.run(func() {
						log.Info("this replica writes now", "lease", leaseName)
						if err := work(ctx); err != nil {
							log.Error("writing to the API server", "reason", err)
						}
					})
				},
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return fmt.Errorf("electing the replica that writes: %w", err)
		}
		elector.Run(ctx)
		t.end()
	}
	return nil
}

// term is one time of holding the lease. The elector starts its work in a
// goroutine of its own and does not wait for it, not even for its start.
type term struct {
	mu          sync.Mutex
	begun, over bool
	done        chan struct{}
}

func (t *term) run(work func()) {
	t.mu.Lock()
	late := t.over
	t.begun = true
	t.mu.Unlock()
	defer close(t.done)
	if !late {
		work()
	}
}

// end waits for the work, if it has begun, and keeps it from beginning.
func (t *term) end() {
	t.mu.Lock()
	t.over = true
	begun := t.begun
	t.mu.Unlock()
	if begun {
		<-t.done
	}
}

package istiodlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/jwks"
	"github.com/ambit-mesh/ambit/istiod-lite/ledger"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/push"
)

// plane is the running control plane.
type plane struct {
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	platform  platform
	queue     *feed.Queue
	pods      *placement
	authority *ca.Authority
	guides    *ca.Guides
	conductor *ca.Conductor
	pusher    *push.Pusher
	model     atomic.Pointer[published]
	ledger    ledger.Ledger
	issuers   *jwks.Fetcher
	ready     atomic.Bool
}

// Run is the control plane from its start until ctx ends and everything it
// started has stopped.
func Run(ctx context.Context, cfg Config) error {
	for _, l := range []net.Listener{cfg.GRPC, cfg.HTTP, cfg.Metrics} {
		if l != nil {
			defer l.Close()
		}
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	p := &plane{
		cfg: cfg, log: cfg.Logger.With("component", "istiod"), metrics: newMetrics(),
		queue: feed.NewQueue(), pods: newPlacement(cfg.kindOf), guides: ca.NewGuides(),
	}
	p.issuers = jwks.New(jwks.Config{
		Put: p.queue.Put, Blocked: cfg.BlockedIssuers, AllowLocal: cfg.AllowLocalIssuers, Logger: cfg.Logger.With("component", "jwks"),
	})
	p.ledger.Settings = objects.Key{Namespace: cfg.Namespace, Name: "istio"}
	p.platform = p.cluster()
	if cfg.Directory != nil {
		p.platform = p.directory()
	}
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return p.serveHTTP(ctx, cfg.HTTP, p.pages()) })
	tasks.Go(func() error { return p.serveHTTP(ctx, cfg.Metrics, p.metrics.pages()) })
	tasks.Go(func() error { return p.start(ctx, tasks) })
	return tasks.Wait()
}

// start brings the parts up in order: nobody is served before the mesh has
// been read whole and certificates can be signed.
func (p *plane) start(ctx context.Context, tasks *errgroup.Group) error {
	tasks.Go(func() error { return p.platform.watch(ctx) })
	course, err := p.platform.course(ctx)
	if err != nil {
		return unless(ctx, err)
	}
	if p.authority, err = ca.NewAuthority(course.Material, ca.AuthorityConfig{}); err != nil {
		return err
	}
	p.conductor = p.newConductor()
	tasks.Go(func() error { return p.platform.write(ctx) })
	select {
	case <-p.platform.synced:
	case <-ctx.Done():
		return nil
	}
	p.pusher = push.New(push.Config{
		Authenticate: p.authenticate, Identifier: "istiod-lite/" + p.cfg.Identity,
		Observer: p.metrics, Logger: p.cfg.Logger.With("component", "xds"),
	})
	t := newTranslation(p)
	if err := t.step(); err != nil {
		return err
	}
	p.releaseMemory()
	tasks.Go(func() error { return p.conductor.Run(ctx) })
	tasks.Go(func() error { return p.issuers.Run(ctx) })
	tasks.Go(func() error { return push.Pace(ctx, p.queue.Changed(), push.Shortest, push.Longest, t.step) })
	p.ready.Store(true)
	p.log.Info("ready", "address", p.cfg.GRPC.Addr().String(), "trustDomain", p.trustDomain())
	return p.serveGRPC(ctx)
}

// releaseMemory gives back what reading the mesh took beyond what keeping it
// does.
func (p *plane) releaseMemory() {
	debug.FreeOSMemory()
	if err := linux.ReleaseProgram(); err != nil {
		p.log.Warn("some memory of the start is kept", "reason", err)
	}
}

// authenticate admits a proxy's stream.
func (p *plane) authenticate(ctx context.Context) (string, error) {
	caller, err := ca.CallerOf(ctx, p.platform.authenticator)
	if err != nil {
		p.log.Warn("client refused", "reason", err)
		return "", status.Error(codes.Unauthenticated, "request authenticate failure")
	}
	return caller.Account.String(), nil
}

// trustDomain is that of the newest mesh settings.
func (p *plane) trustDomain() string {
	if m := p.model.Load(); m != nil {
		return m.mesh.TrustDomain
	}
	return p.cfg.Mesh.TrustDomain
}

// unless forgets an error that only says that ctx ended.
func unless(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return fmt.Errorf("control plane: %w", err)
}

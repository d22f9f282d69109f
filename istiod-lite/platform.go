package istiodlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/kube"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/provision"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// platform is what the control plane stands on: a cluster, or a directory.
type platform struct {
	authenticator ca.Authenticator
	// watch feeds the queue until ctx ends; synced is closed once all that
	// was there is in it.
	watch  func(context.Context) error
	synced <-chan struct{}
	// course finds the authority that signs, and where it is going; board is
	// where that is kept.
	course func(context.Context) (*ca.Course, error)
	board  ca.Board
	// changed is told when other roots are trusted; it does not wait.
	changed func()
	// write tells the platform's users what they are told, until ctx ends.
	write func(context.Context) error
	// tell takes the newest conditions and details; it does not wait.
	tell func([]translate.Condition, map[objects.Ref]*translate.Detail)
	// provide takes the newest plan of what waypoints are made of; it does not
	// wait.
	provide func(provision.Plan)
}

func (p *plane) cluster() platform {
	if p.cfg.Cluster == nil {
		return platform{}
	}
	c, log := *p.cfg.Cluster, p.cfg.Logger.With("component", "kube")
	conditions, provisioner := kube.NewConditions(c.Dynamic, log), kube.NewProvisioner(c, log)
	w := kube.NewWatcher(kube.WatcherConfig{Clients: c, Queue: p.queue, Namespace: p.cfg.Namespace, Mesh: p.cfg.Mesh, Logger: log, Seen: conditions.Seen})
	parameters := kube.NewParameters(c.Kube, p.queue, log)
	board := kube.NewBoard(&kube.Keys{Client: c.Kube, Namespace: p.cfg.Namespace, Organization: p.cfg.Mesh.TrustDomain, Logger: log})
	roots, lists := make(chan struct{}, 1), make(chan struct{}, 1)
	write := func(ctx context.Context) error {
		tasks, ctx := errgroup.WithContext(ctx)
		tasks.Go(func() error { return board.Run(ctx) })
		tasks.Go(func() error { return parameters.Run(ctx) })
		tasks.Go(func() error {
			return kube.Lead(ctx, c.Kube, p.cfg.Namespace, p.cfg.Identity, log, func(ctx context.Context) error {
				leading, ctx := errgroup.WithContext(ctx)
				leading.Go(func() error { return kube.RootsOf(c.Kube, p.authority.Roots, roots, log).Run(ctx) })
				leading.Go(func() error { return kube.RevocationsOf(c.Kube, p.conductor.Revocations, lists, log).Run(ctx) })
				leading.Go(func() error { return p.conductor.Lead(ctx) })
				leading.Go(func() error { return conditions.Run(ctx) })
				leading.Go(func() error { return provisioner.Run(ctx) })
				return leading.Wait()
			})
		})
		return tasks.Wait()
	}
	return platform{
		authenticator: &kube.Tokens{Client: c.Kube, Audiences: p.cfg.Audiences},
		watch:         w.Run, synced: w.Synced(), course: board.Load, board: board, write: write,
		changed: func() {
			for _, c := range []chan struct{}{roots, lists} {
				select {
				case c <- struct{}{}:
				default: // one is pending already
				}
			}
		},
		tell: func(all []translate.Condition, details map[objects.Ref]*translate.Detail) {
			conditions.Details(details)
			conditions.Want(all)
		},
		provide: func(plan provision.Plan) {
			parameters.Want(plan.Parameters)
			provisioner.Want(plan)
		},
	}
}

func (p *plane) directory() platform {
	d := p.cfg.Directory
	board := ca.NewMemory()
	f := feed.NewDirectory(d.Path, p.cfg.Mesh, p.queue, p.cfg.Logger.With("component", "feed"))
	return platform{
		authenticator: tokens(d.Tokens),
		watch:         f.Run, synced: f.Synced(),
		course: func(context.Context) (*ca.Course, error) {
			m, err := keysIn(d.Keys, p.cfg.Mesh.TrustDomain)
			if err != nil {
				return nil, err
			}
			c, err := ca.NewCourse(m, nil, time.Now())
			if err == nil {
				board.Begin(c)
			}
			return c, err
		},
		board: board, changed: func() {},
		write:   func(context.Context) error { return nil },
		provide: func(provision.Plan) {}, // waypoints are started by hand there
		tell:    logTroubles(p.log),
	}
}

// logTroubles says what objects would be told in their status, each thing once.
func logTroubles(log *slog.Logger) func([]translate.Condition, map[objects.Ref]*translate.Detail) {
	last := map[translate.Condition]bool{}
	return func(all []translate.Condition, _ map[objects.Ref]*translate.Detail) {
		now := map[translate.Condition]bool{}
		for _, c := range all {
			if !c.Trouble() {
				continue
			}
			if now[c] = true; !last[c] {
				log.Warn("not as written", "object", c.Object.String(), "parent", c.Parent.Name, "condition", c.Type, "reason", c.Message)
			}
		}
		last = now
	}
}

// tokens knows its callers by heart.
type tokens map[string]ca.Caller

// Authenticate implements ca.Authenticator.
func (t tokens) Authenticate(_ context.Context, token string) (ca.Caller, error) {
	c, ok := t[token]
	if !ok || token == "" {
		return ca.Caller{}, errors.New("unknown token")
	}
	return c, nil
}

// keysIn reads signing material from files named as in a Secret, and makes it
// if the directory has none.
func keysIn(dir, organization string) (*ca.Material, error) {
	data := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the signing key: %w", err)
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".pem" || ext == ".crt" || ext == ".key" {
			if data[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("reading the signing key: %w", err)
			}
		}
	}
	if len(data) > 0 {
		return ca.ParseMaterial(data)
	}
	m, err := ca.NewRoot(organization, time.Now())
	if err != nil {
		return nil, err
	}
	if data, err = m.Data(); err != nil {
		return nil, err
	}
	for name, text := range data {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, fmt.Errorf("writing the signing key: %w", err)
		}
	}
	return m, nil
}

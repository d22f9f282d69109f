package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Config says which cluster is meant and, for Up, how to make it.
type Config struct {
	// Name of the cluster. Required.
	Name string
	// Root is the directory of all clusters' state. Empty means DefaultRoot.
	Root string
	// Nodes is how many workers Up makes. Zero means 2.
	Nodes int
	// Family is the IP families that Up configures. Empty means IPv4.
	Family Family
	// Bin is the directory of programs (package supply fills it). Up needs it.
	Bin string
	// Images is the directory of image archives: Up loads pause.tar and
	// coredns.tar from it. Up needs it.
	Images string
	// Log receives what is being done. Nil means slog.Default.
	Log *slog.Logger
}

// Cluster is a handle on one cluster by name; it may or may not exist.
// Its methods may be called from several goroutines and processes: each takes
// the cluster's lock.
type Cluster struct {
	name, root string
	log        *slog.Logger
}

// Open returns a handle on a cluster. It touches nothing.
func Open(cfg Config) (*Cluster, error) {
	if err := CheckName(cfg.Name); err != nil {
		return nil, err
	}
	c := &Cluster{name: cfg.Name, root: cfg.Root, log: cfg.Log}
	if c.root == "" {
		c.root = DefaultRoot
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	c.log = c.log.With("component", "cluster", "cluster", c.name)
	return c, nil
}

// Up makes the cluster that cfg describes, or completes the one that exists,
// and returns when its API server is ready, its nodes are Ready and DNS answers.
func Up(ctx context.Context, cfg Config) (*Cluster, error) {
	c, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Nodes == 0 {
		cfg.Nodes = 2
	}
	if cfg.Family == "" {
		cfg.Family = IPv4
	}
	if err := c.up(ctx, cfg); err != nil {
		return nil, fmt.Errorf("bring up cluster %s: %w", c.name, err)
	}
	return c, nil
}

// Name is the cluster's name.
func (c *Cluster) Name() string { return c.name }

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir(), "kubeconfig") }

func (c *Cluster) dir() string { return filepath.Join(c.root, c.name) }

// List names the clusters below root ("" means DefaultRoot).
func List(root string) ([]string, error) {
	if root == "" {
		root = DefaultRoot
	}
	return stateNames(root)
}

// change runs f with the cluster's state under its lock.
func (c *Cluster) change(f func(*state) error) error {
	if os.Geteuid() != 0 {
		return errors.New("a test cluster is made of namespaces and mounts: run this as root")
	}
	release, err := lock(c.dir(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no cluster %q: `cluster list` shows those that exist, `cluster up --name %s` makes it", c.name, c.name)
	}
	if err != nil {
		return err
	}
	defer release()
	s, err := readState(c.dir())
	if err != nil {
		return fmt.Errorf("cluster %s is half made: run `cluster down --name %s`: %w", c.name, c.name, err)
	}
	return f(s)
}

// read returns the state as it is now, without waiting for who changes it.
func (c *Cluster) read() (*state, error) {
	s, err := readState(c.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no cluster %q: `cluster list` shows those that exist", c.name)
	}
	return s, err
}

// poll calls f until it returns nil, the context ends, or the time is up; then
// it returns what f said last.
func poll(ctx context.Context, timeout, every time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %s: %w", timeout, err)
		case <-time.After(every):
		}
	}
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-mesh/ambit/e2e/cluster/machine"
)

func (c *Cluster) up(ctx context.Context, cfg Config) error {
	if os.Geteuid() != 0 {
		return errors.New("a test cluster is made of namespaces and mounts: run this as root")
	}
	if err := checkSupplies(cfg); err != nil {
		return err
	}
	release, err := lock(c.dir(), true)
	if err != nil {
		return err
	}
	defer release()
	s, err := c.adopt(cfg)
	if err != nil {
		return err
	}
	if s == nil {
		if s, err = c.found(cfg); err != nil {
			return err
		}
	}
	for len(s.Nodes) < cfg.Nodes {
		if _, err := s.addNode(); err != nil {
			return err
		}
	}
	if err := s.save(c.dir()); err != nil {
		return err
	}
	return c.bootAll(ctx, s)
}

func checkSupplies(cfg Config) error {
	for _, name := range append([]string{"kube", "containerd", "containerd-shim-runc-v2", "ctr", "machine-init"}, cniPlugins...) {
		if _, err := os.Stat(filepath.Join(cfg.Bin, name)); err != nil {
			return fmt.Errorf("program %s is missing, run `cluster build`: %w", name, err)
		}
	}
	for _, name := range systemImages {
		if _, err := os.Stat(filepath.Join(cfg.Images, name)); err != nil {
			return fmt.Errorf("image archive %s is missing, run `make images`: %w", name, err)
		}
	}
	return nil
}

// adopt returns the state of a living cluster that fits cfg, or nil after the
// remains of a dead one are swept away.
func (c *Cluster) adopt(cfg Config) (*state, error) {
	s, err := readState(c.dir())
	if err == nil && s.alive(controlName) {
		if s.Family != cfg.Family {
			return nil, fmt.Errorf("it exists and speaks %s, not %s: take it down first", s.Family, cfg.Family)
		}
		s.Bin, s.Images = cfg.Bin, cfg.Images
		return s, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("state is unreadable, starting afresh", "error", err)
	}
	if err == nil {
		c.log.Info("removing what an earlier run left behind")
	}
	return nil, c.sweep()
}

// found makes the state and the wire of a new cluster.
func (c *Cluster) found(cfg Config) (*state, error) {
	// The directory of all clusters is locked while an index is chosen.
	release, err := lock(c.root, true)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := limitsOf(c.root).raise(hostLimits); err != nil {
		// One small cluster fits the usual limits, so this is no end.
		c.log.Warn("a limit of the host stays low; several clusters or many pods may fail", "error", err)
	}
	index, err := c.freeIndex()
	if err != nil {
		return nil, err
	}
	s := &state{
		Name: c.name, Index: index, Family: cfg.Family, Bin: cfg.Bin, Images: cfg.Images,
		Procs: map[string]machine.Process{},
	}
	// Saved first: from here on the sweep knows what to look for.
	if err := s.save(c.dir()); err != nil {
		return nil, err
	}
	return s, makeLAN(s.plan())
}

func (c *Cluster) freeIndex() (int, error) {
	names, err := stateNames(c.root)
	if err != nil {
		return 0, err
	}
	taken := map[int]string{}
	for _, name := range names {
		if other, err := readState(filepath.Join(c.root, name)); err == nil && name != c.name {
			taken[other.Index] = name
		}
	}
	used, err := hostRanges()
	if err != nil {
		return 0, fmt.Errorf("list the host's routes: %w", err)
	}
	return chooseIndex(c.name, taken, used)
}

// bootAll starts every machine that does not run and waits until all is well.
func (c *Cluster) bootAll(ctx context.Context, s *state) error {
	began := time.Now()
	ca, err := openPKI(filepath.Join(c.dir(), "pki"))
	if err != nil {
		return err
	}
	admin, err := kubeconfig(s.plan(), ca, subject{name: "ambit-e2e-admin", group: "system:masters"})
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.Kubeconfig(), []byte(admin), 0o600); err != nil {
		return err
	}
	if err := c.bootControl(s, ca); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if err := c.bootNode(s, ca, n); err != nil {
			return err
		}
	}
	if err := c.routeAll(s); err != nil {
		return err
	}
	c.log.Info("machines are up, waiting for Kubernetes", "after", time.Since(began).Round(time.Millisecond))
	if err := c.settle(ctx, s); err != nil {
		return err
	}
	c.log.Info("cluster is ready", "nodes", len(s.Nodes), "after", time.Since(began).Round(time.Millisecond), "kubeconfig", c.Kubeconfig())
	return nil
}

// settle loads the images of the system, deploys DNS and waits for the nodes.
func (c *Cluster) settle(ctx context.Context, s *state) error {
	api, err := c.newAPI()
	if err != nil {
		return err
	}
	var g errgroup.Group
	for _, n := range s.Nodes {
		g.Go(func() error { return c.loadSystem(ctx, s, n) })
	}
	g.Go(func() error {
		if err := api.awaitReady(ctx, 90*time.Second); err != nil {
			return fmt.Errorf("API server: %w%s", err, c.lastWords(controlName, "kube-apiserver"))
		}
		c.log.Info("API server is ready")
		if err := c.deployDNS(ctx, s); err != nil {
			return err
		}
		return c.awaitNodes(ctx, api, s, s.Nodes)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if err := api.awaitDeployment(ctx, "kube-system", "coredns", 120*time.Second); err != nil {
		return fmt.Errorf("cluster DNS: %w", err)
	}
	return nil
}

// logOf is the path, on the host, of a service's log.
func (c *Cluster) logOf(name, service string) string {
	return filepath.Join(diskOf(c.dir(), name), "log", service+".log")
}

// lastWords names a service's log and quotes the last complaint in it, for an
// error about that service.
func (c *Cluster) lastWords(name, service string) string {
	path := c.logOf(name, service)
	said := "\nits log: " + path
	data, err := os.ReadFile(path)
	if err != nil {
		return said + " (not there: it never started; see " + machine.BootLog(diskOf(c.dir(), name)) + ")"
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range slices.Backward(lines) {
		// klog's lines begin with their level.
		if strings.HasPrefix(line, "E") || strings.HasPrefix(line, "F") {
			return said + "\nlast complaint: " + line
		}
	}
	return said + "\nlast line: " + lines[len(lines)-1]
}

// Package stage sets a stage for the demo and the end-to-end tests: a cluster
// with the mesh on it. It builds what is missing, brings up a cluster of
// namespaces (or takes the one that KUBECONFIG names), loads the images and
// installs the mesh, and it offers what a play needs: apply, exec, logs,
// captures. It refuses to know any play. Called by e2e/demo and e2e/suite.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/ambit/install"
	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/e2e/cluster"
	"github.com/ambit-mesh/ambit/e2e/cluster/preflight"
	"github.com/ambit-mesh/ambit/e2e/cluster/supply"
	"github.com/ambit-mesh/ambit/e2e/images"
	"github.com/ambit-mesh/ambit/manifests"
	"github.com/ambit-mesh/ambit/manifests/crd"
)

// Config says which stage to set.
type Config struct {
	// Name of the cluster to bring up. Required unless Kubeconfig is set.
	Name string
	// Nodes of the cluster to bring up. Zero means 2.
	Nodes int
	// Family is its address families. Empty means IPv4.
	Family cluster.Family
	// Kubeconfig of a cluster that exists. The images must be in a registry it
	// can reach, under ImageRepo. What would harm its nodes is refused. The one
	// of a cluster of ours counts as none.
	Kubeconfig string
	// ImageRepo and ImageTag name the images on an existing cluster. Empty
	// means the names of the archives that are built here.
	ImageRepo, ImageTag string
	// GatewayAPI is the channel of the Gateway API. Empty means standard.
	GatewayAPI string
	// Images are the images a play needs beside the mesh's own and echo.
	Images []string
	// Progress gets a line for every step. Nil means none.
	Progress io.Writer
}

// Stage is a cluster with the mesh on it.
type Stage struct {
	// Cluster is the cluster we brought up, nil on somebody else's.
	Cluster *cluster.Cluster
	// Reach is the connection to it.
	Reach *reach.Cluster
	// Checkout is the root of the source tree.
	Checkout string

	cfg   Config
	began time.Time
	log   *slog.Logger
}

// Set sets the stage. It may be repeated on a stage that stands.
func Set(ctx context.Context, cfg Config) (*Stage, error) {
	s, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Kubeconfig == "" {
		err = s.raise(ctx)
	} else {
		err = s.connect(cfg.Kubeconfig)
	}
	if err != nil {
		return nil, err
	}
	return s, s.Install(ctx)
}

// Foreign reports whether a kubeconfig leads to somebody else's cluster. One of
// ours is known by its place: users export it to look around.
func Foreign(kubeconfig string) bool {
	return kubeconfig != "" && !strings.HasPrefix(filepath.Clean(kubeconfig), cluster.DefaultRoot+string(filepath.Separator))
}

func prepare(cfg Config) (*Stage, error) {
	if !Foreign(cfg.Kubeconfig) {
		cfg.Kubeconfig = ""
	}
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	if cfg.Family == "" {
		cfg.Family = cluster.IPv4
	}
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	checkout, err := supply.FindCheckout(wd)
	if err != nil {
		return nil, err
	}
	log := slog.New(newProgressHandler(cfg.Progress))
	return &Stage{Checkout: checkout, cfg: cfg, began: time.Now(), log: log}, nil
}

// raise builds everything and brings our own cluster up.
func (s *Stage) raise(ctx context.Context) error {
	s.Step("looking at this machine")
	report := preflight.Check(ctx, preflight.Config{Dir: s.Checkout, Install: true, Log: s.log})
	if !report.OK() {
		return fmt.Errorf("this machine cannot run the cluster:\n%s", report.Table())
	}
	s.Step("building Kubernetes and its tools (minutes the first time, cached afterwards)")
	if err := supply.Build(ctx, supply.Config{Checkout: s.Checkout, Log: s.log}); err != nil {
		return err
	}
	if err := linkKubectl(filepath.Join(s.Checkout, "build", "bin")); err != nil {
		return err
	}
	s.Step("building the images")
	archives, err := images.Build(ctx, images.Config{Checkout: s.Checkout, Names: s.imageNames("pause", "coredns"), Log: s.log})
	if err != nil {
		return err
	}
	s.Step("bringing up cluster %q", s.cfg.Name)
	s.Cluster, err = cluster.Up(ctx, cluster.Config{
		Name: s.cfg.Name, Nodes: s.cfg.Nodes, Family: s.cfg.Family, Log: s.log,
		Bin: filepath.Join(s.Checkout, "build", "bin"), Images: filepath.Join(s.Checkout, "build", "images"),
	})
	if err != nil {
		return err
	}
	s.Step("loading the images into the nodes")
	if err := s.Cluster.Load(ctx, archives...); err != nil {
		return err
	}
	return s.connect(s.Cluster.Kubeconfig())
}

// linkKubectl gives users of the cluster a kubectl: the programs of Kubernetes
// are one binary that goes by the name it is called by.
func linkKubectl(bin string) error {
	link := filepath.Join(bin, "kubectl")
	if err := os.Symlink("kube", link); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("linking kubectl: %w", err)
	}
	return nil
}

// imageNames are the images of the stage: the mesh, echo, the play's, and more.
func (s *Stage) imageNames(more ...string) []string {
	names := append([]string{"echo"}, more...)
	for _, img := range images.Product() {
		names = append(names, img.Name)
	}
	return append(names, s.cfg.Images...)
}

func (s *Stage) connect(kubeconfig string) error {
	c, err := reach.Open(kubeconfig, "")
	if err != nil {
		return err
	}
	s.Reach = c
	return nil
}

// manifests are the mesh's own, for installing and uninstalling.
func (s *Stage) manifests() ([]manifests.File, error) {
	defs, err := crd.Collect(func(source crd.Source) ([]byte, error) {
		return os.ReadFile(filepath.Join(s.Checkout, "manifests", "crd", crd.EmbeddedDir, source.Embedded))
	})
	if err != nil {
		return nil, fmt.Errorf("reading the definitions (run `make tools`): %w", err)
	}
	return manifests.Render(manifests.Config{Repo: s.cfg.ImageRepo, Tag: s.cfg.ImageTag, GatewayAPI: s.cfg.GatewayAPI}, defs)
}

// Install installs the mesh as `ambit install` does.
func (s *Stage) Install(ctx context.Context) error {
	s.Step("installing the mesh")
	files, err := s.manifests()
	if err != nil {
		return err
	}
	objs, err := install.Objects(files)
	if err != nil {
		return err
	}
	if err := s.stamp(objs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 4*time.Minute, errors.New("the mesh was not ready within 4 minutes"))
	defer cancel()
	if objs, err = install.Respect(ctx, s.Reach, objs, s.cfg.Progress); err != nil {
		return err
	}
	if err := install.Apply(ctx, s.Reach, objs, io.Discard); err != nil {
		return err
	}
	return install.WaitReady(ctx, s.Reach, s.cfg.Progress)
}

// Uninstall takes the mesh out as `ambit uninstall --purge` does.
func (s *Stage) Uninstall(ctx context.Context) error {
	files, err := s.manifests()
	if err != nil {
		return err
	}
	objs, err := install.Objects(files)
	if err != nil {
		return err
	}
	return install.Uninstall(ctx, s.Reach, objs, true, s.cfg.Progress)
}

// Strike takes our own cluster down; somebody else's stays as it is.
func (s *Stage) Strike() error {
	if s.Cluster == nil {
		return nil
	}
	return s.Cluster.Down()
}

// Kubeconfig is the path of the one that leads to this stage.
func (s *Stage) Kubeconfig() string {
	if s.Cluster != nil {
		return s.Cluster.Kubeconfig()
	}
	return s.cfg.Kubeconfig
}

// Image is the reference of an image on this stage.
func (s *Stage) Image(name string) string {
	if s.cfg.ImageRepo == "" {
		return images.Ref(images.Prefix, name)
	}
	tag := s.cfg.ImageTag
	if tag == "" {
		tag = images.Tag
	}
	return s.cfg.ImageRepo + "/" + name + ":" + tag
}

// Step says what begins now, with the time since the beginning.
func (s *Stage) Step(format string, args ...any) {
	fmt.Fprintf(s.cfg.Progress, "[%6.1fs] %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

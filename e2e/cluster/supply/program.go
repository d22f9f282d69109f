package supply

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Versions of what is built. A change here rebuilds.
const (
	kubernetesVersion = "v1.37.2" // also in e2e/cluster/kube/go.mod
	containerdVersion = "v2.4.2"
	pluginsVersion    = "v1.9.1"
	corednsVersion    = "v1.15.0"
)

// program is one file of build/bin and where it comes from.
type program struct {
	name string
	pkg  string // package to build
	// version of the module that pkg belongs to; empty for packages of this repository.
	version string
	// dir of the module for packages of this repository, relative to the checkout.
	dir     string
	ldflags string
	// needs is a module that the program must hold in this version ("path@version").
	needs string
	// slow is how long a first build takes, for the reader's patience.
	slow string
}

func programs() []program {
	const base = "k8s.io/component-base/version."
	list := []program{
		{name: "machine-init", pkg: "./e2e/cluster/cmd/machine-init", dir: ".", ldflags: "-s -w"},
		{name: "containerd", pkg: "github.com/containerd/containerd/v2/cmd/containerd", version: containerdVersion, slow: "1 minute"},
		{name: "containerd-shim-runc-v2", pkg: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", version: containerdVersion},
		{name: "ctr", pkg: "github.com/containerd/containerd/v2/cmd/ctr", version: containerdVersion},
	}
	for _, p := range []string{"main/ptp", "main/loopback", "ipam/host-local", "meta/portmap"} {
		list = append(list, program{name: filepath.Base(p), pkg: "github.com/containernetworking/plugins/plugins/" + p, version: pluginsVersion})
	}
	return append(list,
		program{name: "coredns", pkg: "github.com/coredns/coredns", version: corednsVersion, slow: "2 to 4 minutes"},
		program{
			name: "kube", pkg: ".", dir: "e2e/cluster/kube", needs: "k8s.io/kubernetes@" + kubernetesVersion, slow: "8 to 15 minutes",
			ldflags: fmt.Sprintf("-s -w -X %sgitVersion=%s -X %sgitMajor=1 -X %sgitMinor=%s",
				base, kubernetesVersion, base, base, strings.Split(kubernetesVersion, ".")[1]),
		})
}

// outdated says why the program must be built, or nothing.
func (p program) outdated(cfg Config) string {
	file := filepath.Join(cfg.Bin(), p.name)
	info, err := os.Stat(file)
	if err != nil {
		return "missing"
	}
	build, err := buildinfo.ReadFile(file)
	if err != nil {
		return "unreadable"
	}
	if p.version != "" {
		if build.Path != p.pkg || build.Main.Version != p.version {
			return fmt.Sprintf("it is %s %s, wanted %s", build.Path, build.Main.Version, p.version)
		}
		return ""
	}
	if p.needs != "" {
		path, version, _ := strings.Cut(p.needs, "@")
		for _, m := range build.Deps {
			if m.Path == path && m.Version != version {
				return fmt.Sprintf("it holds %s %s, wanted %s", path, m.Version, version)
			}
		}
		return newer(info.ModTime(), filepath.Join(cfg.Checkout, p.dir))
	}
	return "built from this checkout" // the go command knows best, and is quick
}

// newer names a file of dir that changed after the time.
func newer(built time.Time, dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "its source is unreadable"
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.ModTime().After(built) {
			return e.Name() + " changed"
		}
	}
	return ""
}

// build builds the program, with a line at the start, at the end, and one now
// and then in between.
func (p program) build(ctx context.Context, cfg Config, position string) error {
	began := time.Now()
	log := cfg.Log.With("program", p.name, "number", position)
	if p.slow != "" {
		log.Info("building; a first time this takes long", "about", p.slow)
	}
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				log.Info("still building", "for", time.Since(began).Round(time.Second))
			case <-done:
				return
			}
		}
	}()
	said, err := p.command(ctx, cfg).CombinedOutput()
	close(done)
	<-stopped
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", p.name, err, said)
	}
	log.Info("built", "took", time.Since(began).Round(100*time.Millisecond))
	return nil
}

func (p program) command(ctx context.Context, cfg Config) *exec.Cmd {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", p.ldflags, "-o", filepath.Join(cfg.Bin(), p.name), p.pkg}
	if p.version != "" {
		args = []string{"install", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", p.pkg + "@" + p.version}
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(cfg.Checkout, p.dir)
	// An interrupt goes to the go command, which ends its compilers.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOBIN="+cfg.Bin())
	return cmd
}

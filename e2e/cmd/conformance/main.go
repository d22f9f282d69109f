// Command conformance runs the official conformance suite of the Gateway API
// in every mode, or in those that MODE names, and says whether all that we
// claim was passed. With E2E_KEEP=1 the cluster stays up, and one that stands
// is used again. KUBECONFIG names somebody else's cluster; IMAGE_REPO and
// IMAGE_TAG the images on it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ambit-mesh/ambit/e2e/cluster"
	"github.com/ambit-mesh/ambit/e2e/stage"
	"github.com/ambit-mesh/ambit/e2e/trial"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	modes, err := chosen(os.Getenv("MODE"))
	if err != nil {
		return err
	}
	r := &runner{ctx: ctx, version: version(), keep: os.Getenv("E2E_KEEP") != ""}
	for _, m := range modes {
		if err := r.run(m); err != nil {
			return errors.Join(err, r.strike())
		}
	}
	if err := r.strike(); err != nil {
		return err
	}
	if len(r.failed) > 0 {
		return fmt.Errorf("not as claimed:\n  %s", strings.Join(r.failed, "\n  "))
	}
	fmt.Println("everything that is claimed was passed")
	return nil
}

// chosen are the modes that a comma-separated list names; all if it is empty.
func chosen(list string) ([]trial.Mode, error) {
	all := trial.Modes()
	if list == "" {
		return all, nil
	}
	var some []trial.Mode
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(m trial.Mode) bool { return m.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("MODE %q: want standard, auto or experimental, or several with commas", name)
		}
		some = append(some, all[i])
	}
	return some, nil
}

// version is the product's, in the form that reports want.
func version() string {
	if v := os.Getenv("VERSION"); strings.HasPrefix(v, "v") {
		return v
	}
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "v0.0.0-unknown"
	}
	return "v0.0.0-" + strings.TrimSpace(string(out))
}

// runner runs modes one after the other, on one cluster as long as they want
// the same channel.
type runner struct {
	ctx     context.Context
	version string
	keep    bool
	binary  string // the suite, once it is compiled
	stage   *stage.Stage
	channel string
	failed  []string
}

func (r *runner) run(m trial.Mode) error {
	if r.channel != m.GatewayAPI {
		if err := r.strike(); err != nil {
			return err
		}
		if err := r.set(m.GatewayAPI); err != nil {
			return err
		}
	}
	if err := r.compile(); err != nil {
		return err
	}
	cfg := trial.Config{
		Stage: r.stage, Binary: r.binary, Mode: m, Dir: filepath.Join(r.stage.Checkout, "build", "conformance"),
		Version: r.version, Progress: os.Stdout,
	}
	if err := r.one(cfg); err != nil {
		return err
	}
	if len(m.Beyond) == 0 {
		return nil
	}
	cfg.Name, cfg.Beyond, cfg.Only = m.Name+"-beyond", true, m.Beyond
	return r.one(cfg)
}

func (r *runner) compile() (err error) {
	if r.binary != "" {
		return nil
	}
	r.stage.Step("compiling the suite (a minute or more the first time)")
	r.binary, err = trial.Build(r.ctx, r.stage.Checkout)
	return err
}

func (r *runner) one(cfg trial.Config) error {
	name := cfg.Name
	if name == "" {
		name = cfg.Mode.Name
	}
	r.stage.Step("running %s", name)
	results, err := trial.Run(r.ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s", name, results.Table())
	for _, f := range results.Failed() {
		r.failed = append(r.failed, name+": "+f)
	}
	return nil
}

// set brings up a cluster with a channel of the Gateway API.
func (r *runner) set(channel string) error {
	kubeconfig := os.Getenv("KUBECONFIG")
	name := os.Getenv("E2E_CLUSTER")
	if name == "" {
		name = "conformance"
	}
	if channel != "standard" {
		name += "-x"
	}
	if !stage.Foreign(kubeconfig) && !r.keep {
		// What an earlier run left behind must not decide this one.
		left, err := cluster.Open(cluster.Config{Name: name})
		if err != nil {
			return err
		}
		if err := left.Down(); err != nil {
			return err
		}
	}
	s, err := stage.Set(r.ctx, stage.Config{
		Name: name, GatewayAPI: channel, Images: []string{"echo-advanced"}, Progress: os.Stdout,
		Kubeconfig: kubeconfig, ImageRepo: os.Getenv("IMAGE_REPO"), ImageTag: os.Getenv("IMAGE_TAG"),
	})
	if err != nil {
		return err
	}
	r.stage, r.channel = s, channel
	return nil
}

// strike takes the cluster down, unless it is to stay.
func (r *runner) strike() error {
	if r.stage == nil || r.keep {
		return nil
	}
	r.stage.Step("taking the cluster down")
	s := r.stage
	r.stage, r.channel = nil, ""
	return s.Strike()
}

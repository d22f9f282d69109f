package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/e2e/stage"
	"github.com/ambit-mesh/ambit/manifests"
)

// Config says how the suite is run.
type Config struct {
	// Stage is where. Required.
	Stage *stage.Stage
	// Binary is what Build made. Required.
	Binary string
	// Mode is one of Modes.
	Mode Mode
	// Dir gets NAME.log, and NAME-report.yaml if all tests run. Required.
	Dir string
	// Name is what the files are called. Empty means the mode's.
	Name string
	// Only names the tests that run. Empty means all.
	Only []string
	// Beyond says that Only are cases of our own and not the suite's.
	Beyond bool
	// Version is the product's, in the report.
	Version string
	// Progress gets the name of each test as it ends. Nil means none.
	Progress io.Writer
}

// namespaces are the suite's, in which everything of it is.
var namespaces = []string{"gateway-conformance-mesh", "gateway-conformance-mesh-consumer"}

// limit is for one run: the suite itself waits up to five minutes for pods.
const limit = 25 * time.Minute

// Build compiles the suite into the checkout's build/bin.
func Build(ctx context.Context, checkout string) (string, error) {
	binary := filepath.Join(checkout, "build", "bin", "conformance.test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, ".")
	cmd.Dir = filepath.Join(checkout, "e2e", "conformance")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling the suite: %w\n%s", err, said)
	}
	return binary, nil
}

// Run runs the suite once. What an earlier run left behind goes first. An error
// is a run that says nothing about the mesh; a test that failed is in Results.
func Run(ctx context.Context, cfg Config) (*Results, error) {
	if cfg.Name == "" {
		cfg.Name = cfg.Mode.Name
	}
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(cfg.logs()); err != nil {
		return nil, err
	}
	if err := sweep(ctx, cfg.Stage); err != nil {
		return nil, err
	}
	began := time.Now()
	results, err := execute(ctx, cfg)
	if err != nil || len(results.Failed()) > 0 {
		keepLogs(ctx, cfg, began)
	}
	return results, errors.Join(err, sweep(context.WithoutCancel(ctx), cfg.Stage))
}

// sweep removes the suite's namespaces and waits until they are gone.
func sweep(ctx context.Context, s *stage.Stage) error {
	for _, ns := range namespaces {
		if err := s.DeleteNamespace(ctx, ns); err != nil {
			return fmt.Errorf("removing namespace %s: %w", ns, err)
		}
	}
	for _, ns := range namespaces {
		if err := s.NamespaceGone(ctx, ns); err != nil {
			return err
		}
	}
	return nil
}

// execute runs the program and reads what it says.
func execute(ctx context.Context, cfg Config) (*Results, error) {
	log, err := os.Create(filepath.Join(cfg.Dir, cfg.Name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	report := filepath.Join(cfg.Dir, cfg.Name+"-report.yaml")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, cfg.Binary, cfg.args(report)...)
	cmd.Dir = cfg.Dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+cfg.Stage.Kubeconfig())
	results := newResults(cfg)
	cmd.Stdout = io.MultiWriter(log, results)
	cmd.Stderr = cmd.Stdout
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("running the suite: %w", err)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("the suite did not end: %w", ctx.Err())
	}
	results.end(err == nil)
	if cfg.reports() {
		err = results.read(report)
	}
	return results, err
}

// reports says whether the run gives a report: the whole suite, unmodified.
func (cfg Config) reports() bool { return len(cfg.Only) == 0 }

func (cfg Config) args(report string) []string {
	test := "TestConformance"
	if cfg.Beyond {
		test = "TestBeyond"
	}
	args := append([]string{"-test.v", "-test.timeout=" + limit.String(), "-test.run=^" + test + "$"}, cfg.Mode.args(cfg.Version)...)
	if len(cfg.Only) > 0 {
		args = append(args, "-only="+strings.Join(cfg.Only, ","))
	}
	if cfg.reports() {
		args = append(args, "-report-output="+report)
	}
	return args
}

// logs is the directory of the logs that keepLogs keeps.
func (cfg Config) logs() string { return filepath.Join(cfg.Dir, cfg.Name+"-logs") }

// keepLogs writes what the parts of the mesh said meanwhile, for whoever looks
// for the cause of a failure. It is a help: what it cannot read, it says there.
func keepLogs(ctx context.Context, cfg Config, since time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	dir := cfg.logs()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		fmt.Fprintln(cfg.Progress, "keeping logs:", err)
		return
	}
	for _, ns := range append([]string{manifests.Namespace}, namespaces...) {
		pods, err := cfg.Stage.Pods(ctx, ns, "")
		if err != nil {
			fmt.Fprintf(cfg.Progress, "keeping logs of %s: %v\n", ns, err)
		}
		for _, p := range pods {
			keepPod(ctx, cfg, dir, &p, since)
		}
	}
}

func keepPod(ctx context.Context, cfg Config, dir string, p *corev1.Pod, since time.Time) {
	for _, c := range p.Spec.Containers {
		text, err := cfg.Stage.Logs(ctx, p.Namespace, p.Name, c.Name, since)
		if err != nil {
			text += "\nreading the log: " + err.Error() + "\n"
		}
		if err := os.WriteFile(filepath.Join(dir, p.Name+"."+c.Name+".log"), []byte(text), 0o644); err != nil {
			fmt.Fprintln(cfg.Progress, "keeping logs:", err)
		}
	}
}

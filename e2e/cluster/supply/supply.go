// Package supply builds the programs that a test cluster is made of, from Go
// modules, into build/bin: Kubernetes and etcd as one program, containerd, the
// CNI plugins, CoreDNS and the machines' init.
//
// It owns the table of versions. It refuses to download anything but by the go
// command, and builds nothing that is there in the right version already.
// cmd/cluster calls it.
package supply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Config says where things are.
type Config struct {
	// Checkout is the root of the main module. Required.
	Checkout string
	// Log receives the progress. Nil means slog.Default.
	Log *slog.Logger
}

// Bin is the directory of programs.
func (c Config) Bin() string { return filepath.Join(c.Checkout, "build", "bin") }

const modulePath = "github.com/ambit-mesh/ambit"

// FindCheckout walks up from dir to the root of the main module.
func FindCheckout(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		data, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), "module "+modulePath+"\n") {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not inside a checkout of %s: go there, or give --checkout", dir, modulePath)
		}
	}
}

// Build builds the programs of these names, or all without any, that are missing
// or have another version.
func Build(ctx context.Context, cfg Config, names ...string) error {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Log = cfg.Log.With("component", "supply")
	release, err := Hold(ctx, cfg.Bin(), cfg.Log)
	if err != nil {
		return err
	}
	defer release()
	var todo []program
	for _, p := range programs() {
		why := p.outdated(cfg)
		if why == "" || len(names) > 0 && !slices.Contains(names, p.name) {
			continue
		}
		cfg.Log.Info("to be built", "program", p.name, "because", why)
		todo = append(todo, p)
	}
	for i, p := range todo {
		if err := p.build(ctx, cfg, fmt.Sprintf("%d/%d", i+1, len(todo))); err != nil {
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return err
		}
	}
	return nil
}

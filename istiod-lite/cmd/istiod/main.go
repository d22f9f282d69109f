// Command istiod is the mesh's control plane. It reads flags and the
// environment and runs istiod-lite until it is told to stop.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	_ "golang.org/x/crypto/x509roots/fallback" // the image has no roots to trust issuers of tokens by
	"k8s.io/klog/v2"

	istiodlite "github.com/ambit-mesh/ambit/istiod-lite"
)

// garbage is what the heap may grow by, in per cent, before garbage is
// collected: the control plane has more time than memory.
const garbage = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	s, err := readSettings(os.Args[1:], os.Getenv)
	if err != nil {
		if err == flag.ErrHelp {
			return
		}
		fmt.Fprintln(os.Stderr, "istiod:", err)
		os.Exit(2)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: s.level}))
	// The API server's client tells each of its steps; only trouble is news.
	trouble := slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: max(s.level, slog.LevelWarn)})
	klog.SetSlogLogger(slog.New(trouble).With("component", "client-go"))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s, log); err != nil {
		log.Error("stopped", "reason", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, log *slog.Logger) error {
	cfg, err := s.config(log)
	if err != nil {
		return err
	}
	return istiodlite.Run(ctx, cfg)
}

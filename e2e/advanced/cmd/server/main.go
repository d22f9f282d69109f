// Command server is the server of the image echo-advanced.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/e2e/advanced"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var cfg advanced.Config
	cmd := &cobra.Command{
		Use: "server", Short: "Serve until asked to stop", Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return advanced.Serve(cmd.Context(), cfg, nil) },
	}
	f := cmd.Flags()
	f.IntSliceVar(&cfg.HTTP, "port", nil, "ports of HTTP/1.1 and HTTP/2 (default 8080)")
	f.IntSliceVar(&cfg.TLS, "tls", nil, "those of --port that are served with TLS")
	f.StringVar(&cfg.Certificate, "crt", "", "PEM file of the certificate")
	f.StringVar(&cfg.Key, "key", "", "PEM file of its key")
	f.IntSliceVar(&cfg.GRPC, "grpc", nil, "ports of gRPC (default 7070)")
	f.IntSliceVar(&cfg.TCP, "tcp", nil, "ports that echo (default 9090)")
	f.StringVar(&cfg.Version, "version", "", "told in every answer")
	return cmd
}

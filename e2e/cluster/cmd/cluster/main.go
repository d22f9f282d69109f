// Command cluster makes and ends Kubernetes clusters on this machine for tests
// and demonstrations, in the habit of kind. See package e2e/cluster.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/e2e/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// options are what every command understands.
type options struct {
	name, root, checkout string
	quiet                bool
}

func (o *options) log() *slog.Logger {
	level := slog.LevelInfo
	if o.quiet {
		level = slog.LevelWarn
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

func (o *options) config() cluster.Config {
	return cluster.Config{Name: o.name, Root: o.root, Log: o.log()}
}

func (o *options) open() (*cluster.Cluster, error) { return cluster.Open(o.config()) }

func root() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:           "cluster",
		Short:         "Kubernetes clusters made of namespaces, on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&o.name, "name", "demo", "name of the cluster")
	flags.StringVar(&o.root, "state", cluster.DefaultRoot, "directory of all clusters' state")
	flags.StringVar(&o.checkout, "checkout", "", "root of the source tree (default: found from the working directory)")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "print only what is wrong")
	cmd.AddCommand(
		buildCommand(o), preflightCommand(o), upCommand(o), downCommand(o), loadCommand(o),
		nodeCommand(o), linkCommand(o), statusCommand(o), kubeconfigCommand(o), kubectlCommand(o), listCommand(o),
	)
	return cmd
}

// Package command is the tree of the ambit command: flags, help, output and
// exit codes. It owns what a user types and reads; it refuses to decide
// anything itself: installing is ambit/install, judging ambit/doctor, tables
// ambit/inspect. Called by ambit/cmd/ambit.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/ambit/reach"
)

// Exit codes.
const (
	// ExitError: the command could not do its work.
	ExitError = 1
	// ExitUnhealthy: the command worked, and the answer is no: `ambit check` found
	// a failure, `ambit status` somebody who is behind, `ambit can` a denial.
	ExitUnhealthy = 2
	// ExitUsage: the command line makes no sense.
	ExitUsage = 64
)

// errUnhealthy ends a command that worked, and has printed an answer that is
// not the one hoped for.
var errUnhealthy = errors.New("not as it should be")

// usageError is a command line that makes no sense.
type usageError struct{ error }

// global are the flags of every command, and where output goes.
type global struct {
	kubeconfig, context string
	output              string
	version             string
	// open connects to the cluster; tests give their own.
	open func(kubeconfig, context string) (*reach.Cluster, error)
}

// Run runs one command line and returns the exit code. Errors go to stderr,
// with what to do if that is known.
func Run(ctx context.Context, args []string, version string, stdout, stderr io.Writer) int {
	g := &global{version: version, open: reach.Open}
	return g.run(ctx, args, stdout, stderr)
}

func (g *global) run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := g.tree()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUnhealthy):
		return ExitUnhealthy
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "ambit: %v\n", err)
		return ExitUsage
	}
	fmt.Fprintf(stderr, "ambit: %v\n", err)
	return ExitError
}

func (g *global) tree() *cobra.Command {
	root := &cobra.Command{
		Use:   "ambit",
		Short: "Install, check and look into the ambit service mesh",
		Long: `ambit puts the mesh into a cluster, takes it out, says whether it is healthy,
and shows what the node proxies know.

Pods join the mesh by a label, without a restart:

  kubectl label namespace shop istio.io/dataplane-mode=ambient`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSubcommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see: %s --help)", err, c.CommandPath())}
	})
	flags := root.PersistentFlags()
	flags.StringVar(&g.kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)")
	flags.StringVar(&g.context, "context", "", "context of the kubeconfig (default: its current one)")
	root.AddCommand(g.installCommand(), g.uninstallCommand(), g.checkCommand(), g.ztunnelCommand(), g.waypointCommand(),
		g.applyCommand(), g.deleteCommand(), g.statusCommand(), g.whyCommand(), g.canCommand(), g.caCommand(), g.versionCommand())
	return root
}

// outputFlag adds -o to a command.
func (g *global) outputFlag(c *cobra.Command) {
	c.Flags().StringVarP(&g.output, "output", "o", "table", "output format: table or json")
}

// print writes v as JSON, or as text by the function given.
func (g *global) print(w io.Writer, v any, text func(io.Writer) error) error {
	switch g.output {
	case "table", "":
		return text(w)
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	return usageError{fmt.Errorf("-o %s: want table or json", g.output)}
}

// noSubcommand refuses what is not a subcommand of c.
func noSubcommand(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown subcommand %q (see: %s --help)", args[0], c.CommandPath())}
	}
	return nil
}

// oneArg wants one argument, which is what.
func oneArg(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError{fmt.Errorf("%s takes one argument, %s (see: %s --help)", c.CommandPath(), what, c.CommandPath())}
		}
		return nil
	}
}

// noArgs is cobra.NoArgs with the exit code of a usage error.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, got %q (see: %s --help)", c.CommandPath(), args[0], c.CommandPath())}
	}
	return nil
}

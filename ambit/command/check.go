package command

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/ambit/doctor"
)

func (g *global) checkCommand() *cobra.Command {
	var namespaces []string
	c := &cobra.Command{
		Use:   "check",
		Short: "Say whether the cluster suits the mesh and the mesh is healthy, and what to do",
		Long: `check looks at the nodes, the installed parts and their rights, the roots and
clocks, the enrolled namespaces and the policies. It asks every running part how
it is, and has each node proxy make a tunnel to the other nodes. It changes
nothing; what cannot be looked at is a failure. Exit code 0: no failure; 2: a
failure was found; 1: the API server could not be asked.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cluster, err := g.open(g.kubeconfig, g.context)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), time.Minute, fmt.Errorf("the cluster did not answer within a minute"))
			defer cancel()
			facts, err := doctor.Gather(ctx, cluster)
			if err != nil {
				return err
			}
			if len(namespaces) > 0 {
				facts.Namespaces = slices.DeleteFunc(facts.Namespaces, func(n doctor.Namespace) bool { return !slices.Contains(namespaces, n.Name) })
			}
			findings := doctor.Judge(facts)
			if err := g.print(c.OutOrStdout(), findings, func(w io.Writer) error { return writeFindings(w, findings) }); err != nil {
				return err
			}
			if doctor.Failed(findings) {
				return errUnhealthy
			}
			return nil
		},
	}
	g.outputFlag(c)
	c.Flags().StringSliceVarP(&namespaces, "namespace", "n", nil, "only these enrolled namespaces")
	return c
}

func writeFindings(w io.Writer, findings []doctor.Finding) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", f.Level, f.Check, f.Detail)
		if f.Fix != "" {
			fmt.Fprintf(tw, "\t\t→ %s\n", f.Fix)
		}
	}
	return tw.Flush()
}

func (g *global) versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this command",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := map[string]string{"version": g.version}
			if info, ok := debug.ReadBuildInfo(); ok {
				v["go"] = info.GoVersion
			}
			return g.print(c.OutOrStdout(), v, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "ambit %s (%s)\n", v["version"], v["go"])
				return err
			})
		},
	}
	g.outputFlag(c)
	return c
}

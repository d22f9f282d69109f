package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/ambit/ask"
)

func (g *global) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show which configuration each proxy has acknowledged, and who is behind",
		Long: `status asks the control plane for its generation of the configuration and for
what each proxy has acknowledged of it, and each proxy for the generation that it
decides with: the newest that told it anything. Running proxies that are connected
to no control plane are shown too: they serve what they had, and AGE is for how
long. Exit code 0: all are up
to date; 2: somebody is behind; 1: the status could not be found.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cluster, err := g.open(g.kubeconfig, g.context)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), 30*time.Second, errors.New("no answer within 30 s"))
			defer cancel()
			running, err := proxies(ctx, cluster)
			if err != nil {
				return err
			}
			planes, err := replicas(ctx, cluster)
			if errors.Is(err, errNoIstiod) && len(running) > 0 {
				err = nil // the proxies go on, and tell with what
			}
			if err != nil {
				return err
			}
			report, err := ask.Status(ctx, planes, running)
			if err != nil {
				return err
			}
			if err := g.print(c.OutOrStdout(), report, func(w io.Writer) error { return writeStatus(w, report, time.Now()) }); err != nil {
				return err
			}
			if report.Behind() {
				return errUnhealthy
			}
			return nil
		},
	}
	g.outputFlag(c)
	return c
}

func writeStatus(w io.Writer, r *ask.Report, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "CONTROL PLANE\tGENERATION\tSINCE")
	if len(r.ControlPlanes) == 0 {
		fmt.Fprintln(tw, "none runs\t-\t-")
	}
	for _, p := range r.ControlPlanes {
		fmt.Fprintf(tw, "%s\t%d\t%s ago\n", p.Name, p.Generation, now.Sub(p.At).Round(time.Second))
	}
	fmt.Fprintln(tw, "\nPROXY\tKIND\tNODE\tACKNOWLEDGED\tBEHIND\tDECIDES WITH\tAGE\tFROM\tREMARK")
	for _, p := range r.Proxies {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Proxy, p.Kind, dash(p.Node), connected(p, p.Generation), connected(p, p.Lag),
			known(p.Serves), age(p.Age), dash(p.ControlPlane), p.Says)
	}
	return tw.Flush()
}

// connected is a number that only a connected proxy has.
func connected(p ask.Row, n uint64) string {
	if p.ControlPlane == "" {
		return "-"
	}
	return fmt.Sprint(n)
}

func known(n uint64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// age is that of a state that nobody confirms.
func age(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return d.String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/internal/decision"
)

func (g *global) whyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "why ID",
		Short: "Tell the story of one decision: who asked, what the policies said, which route was taken and why",
		Long: `why asks every waypoint and every node proxy for a decision by its id: the field
id of the access log, or the header x-ambit-decision that a denied client gets.
A proxy remembers some thousand decisions, those that refused longer than those
that let pass, until it is restarted.`,
		Example: `  ambit why k7q2m4xa
  ambit why k7q2m4xa -o json`,
		Args: oneArg("the id of a decision"),
		RunE: func(c *cobra.Command, args []string) error {
			if !decision.ValidID(args[0]) {
				return usageError{fmt.Errorf("%q is no id of a decision: ids are 8 letters and digits, as in the access log's field id", args[0])}
			}
			cluster, err := g.open(g.kubeconfig, g.context)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), 30*time.Second, errors.New("no answer within 30 s"))
			defer cancel()
			ztunnels, waypoints, err := proxyPods(ctx, cluster)
			if err != nil {
				return err
			}
			all := append(openers(cluster, waypoints), openers(cluster, ztunnels)...)
			stories, silent, err := ask.Why(ctx, all, args[0])
			if err != nil {
				return errors.Join(err, silence(silent))
			}
			return g.print(c.OutOrStdout(), stories, func(w io.Writer) error { return writeStories(w, stories) })
		},
	}
	g.outputFlag(c)
	return c
}

func writeStories(w io.Writer, stories []decision.Story) error {
	for i, s := range stories {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := s.Write(w); err != nil {
			return err
		}
	}
	return nil
}

package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
)

func (g *global) whyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "why ID | why SOURCE DESTINATION[:PORT]",
		Short: "Tell the story of one decision: who asked, what the policies said, which route was taken and why",
		Long: `why asks every waypoint and every node proxy for a decision by its id: the field
id of the access log, or the header x-ambit-decision that a denied client gets.
Or for the newest one between two: SOURCE is a pod or a service account as
namespace/name, or an address; DESTINATION is a pod, an address, or a service as
a pod of SOURCE's namespace would name it. A proxy remembers some thousand
decisions, those that refused longer than those that let pass, until it is
restarted.`,
		Example: `  ambit why k7q2m4xa
  ambit why shop/client-7d9-x db.bank:5432
  ambit why shop/client-7d9-x bank/db-0 -o json`,
		Args: idOrPair,
		RunE: func(c *cobra.Command, args []string) error {
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
			stories, silent, err := whyOf(ctx, cluster, all, args)
			if err != nil {
				return errors.Join(err, silence(silent))
			}
			return g.print(c.OutOrStdout(), stories, func(w io.Writer) error { return writeStories(w, stories) })
		},
	}
	g.outputFlag(c)
	return c
}

// idOrPair wants an id, or two ends.
func idOrPair(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 1 && decision.ValidID(args[0]):
		return nil
	case len(args) == 1:
		return usageError{fmt.Errorf("%q is no id of a decision: ids are 8 letters and digits, as in the access log's field id", args[0])}
	case len(args) != 2:
		return usageError{fmt.Errorf("%s takes the id of a decision, or SOURCE DESTINATION (see: %s --help)", c.CommandPath(), c.CommandPath())}
	}
	if _, err := netip.ParseAddr(args[0]); err != nil && !isObject(args[0]) {
		return usageError{fmt.Errorf("%q: want namespace/name of a pod or a service account, or an address", args[0])}
	}
	if _, _, err := splitDestination(args[1]); err != nil {
		return usageError{fmt.Errorf("%q: want DESTINATION or DESTINATION:PORT: %w", args[1], err)}
	}
	return nil
}

func whyOf(ctx context.Context, cluster *reach.Cluster, all []ask.Opener, args []string) ([]decision.Story, []error, error) {
	if len(args) == 1 {
		return ask.Why(ctx, all, args[0])
	}
	p, err := pair(ctx, cluster, args[0], args[1])
	if err != nil {
		return nil, nil, err
	}
	return ask.Latest(ctx, all, p)
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

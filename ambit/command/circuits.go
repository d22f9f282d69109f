package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/ambit/inspect"
)

func (g *global) circuitsCommand() *cobra.Command {
	var filter inspect.Filter
	var file string
	var all bool
	c := &cobra.Command{
		Use:   "circuits",
		Short: "Which endpoints are taken for sick, why, and how far they have come back",
		Long: `circuits asks every waypoint for the circuit breakers of the endpoints that it
knows. Each waypoint pod has its own. Shown are the endpoints that were ejected
since the pod started, with --all the others too.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dumps, err := g.waypointDumps(c.Context(), file)
			if err != nil {
				return err
			}
			var tables []inspect.Table
			for _, d := range dumps {
				tables = append(tables, inspect.CircuitTable(d.pod, d.dump, filter, !all, time.Now()))
			}
			merged := inspect.Merge(tables...)
			return g.print(c.OutOrStdout(), merged, merged.Write)
		},
	}
	g.outputFlag(c)
	c.Flags().StringVarP(&filter.Namespace, "namespace", "n", "", "only services of this namespace")
	c.Flags().StringVarP(&file, "file", "f", "", "read a waypoint's saved /config_dump instead of asking")
	c.Flags().BoolVarP(&all, "all", "a", false, "also endpoints that were never ejected")
	return c
}

// waypointDump is what one waypoint pod says.
type waypointDump struct {
	pod  string
	dump *inspect.Waypoint
}

func (g *global) waypointDumps(ctx context.Context, file string) ([]waypointDump, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading the dump: %w", err)
		}
		d, err := inspect.ParseWaypoint(b)
		return []waypointDump{{file, d}}, err
	}
	cluster, err := g.open(g.kubeconfig, g.context)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("no answer within 30 s"))
	defer cancel()
	pods, err := cluster.RunningPods(ctx, corev1.NamespaceAll, waypointLabel, "")
	if err != nil {
		return nil, err
	}
	var all []waypointDump
	for _, p := range pods {
		b, err := cluster.Get(ctx, p.Namespace, p.Name, adminPort, "/config_dump")
		if err != nil {
			return nil, fmt.Errorf("%w (is the pod healthy? ambit check)", err)
		}
		d, err := inspect.ParseWaypoint(b)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", p.Namespace, p.Name, err)
		}
		all = append(all, waypointDump{p.Namespace + "/" + p.Name, d})
	}
	return all, nil
}
